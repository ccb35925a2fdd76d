"""Concurrent builds, and builds whose lease, worker or lock is lost."""

import asyncio
from datetime import date, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.reports.build import BuildResult, build_day, lock_date
from daybook_domain.reports.business_day import business_day
from daybook_domain.reports.errors import LeaseLost
from tests.integration.domain.reports.day import DAY, place_order
from tests.support.factories.reports import (
    build_report,
    create_running_run,
    find_report_day,
    get_quantity_by_order,
    list_report_lines,
    list_visible_report_lines,
)
from tests.support.factories.shop import create_order_item, delete_order

pytestmark = pytest.mark.usefixtures("shop")


async def wait_until_blocked(engine: AsyncEngine, *, lock_type: str) -> None:
    """Return when a transaction waits for a lock of `lock_type`."""
    blocked = text(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE NOT granted AND locktype = :lock_type AND datname = current_database()"
    )
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        while (await connection.execute(blocked, {"lock_type": lock_type})).scalar_one() == 0:
            pass


async def test_a_worker_with_an_old_fence_writes_nothing(engine: AsyncEngine) -> None:
    await place_order(engine, 1)
    run_id = await create_running_run(engine, DAY.date, fence=2)

    with pytest.raises(LeaseLost):
        async with engine.begin() as connection:
            await build_day(connection, day=DAY, run_id=run_id, fence=1)

    assert await list_report_lines(engine, DAY.date) == []
    assert await find_report_day(engine, DAY.date) is None


async def test_a_worker_that_loses_its_lease_during_the_build_writes_nothing(
    engine: AsyncEngine,
) -> None:
    await place_order(engine, 1)
    run_id = await create_running_run(engine, DAY.date)

    async def build_with_lost_lease() -> None:
        async with engine.begin() as connection:
            await build_day(connection, day=DAY, run_id=run_id, fence=1)

    async with engine.connect() as blocker:
        # The build has written its rows and blocks at the manifest of the day.
        await blocker.execute(
            text(
                "INSERT INTO report_days (report_date, revision, orders_count, products_count,"
                " digest, data_through, built_at, announced_revision)"
                " VALUES (:day, 9, 0, 0, '', now(), now(), 0)"
            ),
            {"day": DAY.date},
        )
        building = asyncio.create_task(build_with_lost_lease())
        await wait_until_blocked(engine, lock_type="transactionid")
        # Before its last statement, a build does not lock the row of the run.
        async with engine.begin() as reaper:
            await reaper.execute(text("SET LOCAL lock_timeout = '2s'"))
            await reaper.execute(text("UPDATE report_runs SET fence = fence + 1"))
        await blocker.rollback()

    with pytest.raises(LeaseLost):
        await building
    assert await list_report_lines(engine, DAY.date) == []
    assert await find_report_day(engine, DAY.date) is None


async def test_concurrent_builds_of_a_date_create_one_revision(engine: AsyncEngine) -> None:
    orders = {await place_order(engine, quantity): quantity for quantity in range(1, 30)}

    results: list[BuildResult] = await asyncio.gather(
        *(build_report(engine, DAY) for _ in range(4))
    )

    assert await get_quantity_by_order(engine, DAY.date) == orders
    assert {built.revision for built in results} == {1}
    assert sorted(built.added for built in results) == [0, 0, 0, 29]
    assert len({built.digest for built in results}) == 1


async def test_a_build_that_waited_for_the_lock_includes_orders_committed_meanwhile(
    engine: AsyncEngine,
) -> None:
    early = await place_order(engine, 1)
    run_id = await create_running_run(engine, DAY.date)
    async with engine.begin() as connection:
        await build_day(connection, day=DAY, run_id=run_id, fence=1)
        waiting = asyncio.create_task(build_report(engine, DAY))
        await wait_until_blocked(engine, lock_type="advisory")
        late = await place_order(engine, 2)

    built = await waiting

    assert (built.revision, built.added) == (2, 1)
    assert await get_quantity_by_order(engine, DAY.date) == {early: 1, late: 2}


async def test_builds_of_two_dates_do_not_wait_for_each_other(engine: AsyncEngine) -> None:
    next_day = business_day(date(2026, 3, 30), timezone="Europe/Berlin")
    run_id = await create_running_run(engine, DAY.date)
    async with engine.begin() as connection:
        await build_day(connection, day=DAY, run_id=run_id, fence=1)

        built = await build_report(engine, next_day)

    assert built.revision == 1


async def test_an_order_committed_during_the_build_is_excluded_or_included_as_a_whole(
    engine: AsyncEngine,
) -> None:
    early = await place_order(engine, 1)
    async with engine.connect() as blocker:
        # The build has its snapshot and blocks at the row of this order.
        await blocker.execute(
            text("INSERT INTO reports (report_at, order_id, count_product) VALUES (:day, :id, 0)"),
            {"day": DAY.date, "id": early},
        )
        building = asyncio.create_task(build_report(engine, DAY))
        await wait_until_blocked(engine, lock_type="transactionid")
        late = await place_order(engine, 2, 3)
        await blocker.rollback()
    built = await building

    assert await get_quantity_by_order(engine, DAY.date) == {early: 1}
    assert (built.orders_count, built.products_count) == (1, 1)
    assert (await build_report(engine, DAY)).added == 1
    assert await get_quantity_by_order(engine, DAY.date) == {early: 1, late: 5}


async def test_a_reader_sees_the_report_before_or_after_a_build(engine: AsyncEngine) -> None:
    changed, deleted = await place_order(engine, 1), await place_order(engine, 2)
    await build_report(engine, DAY)
    before = await list_report_lines(engine, DAY.date)
    late = await place_order(engine, 3)
    async with engine.begin() as connection:
        await delete_order(connection, deleted)
        await create_order_item(connection, order_id=changed, quantity=1)
    run_id = await create_running_run(engine, DAY.date)

    async with engine.connect() as reader:
        await reader.execution_options(isolation_level="REPEATABLE READ")
        assert await list_visible_report_lines(reader, DAY.date) == before
        async with engine.begin() as connection:
            await build_day(connection, day=DAY, run_id=run_id, fence=1)
            assert await list_report_lines(engine, DAY.date) == before
        assert await list_visible_report_lines(reader, DAY.date) == before
        revision = await reader.execute(text("SELECT revision FROM report_days"))
        assert revision.scalar_one() == 1

    assert await get_quantity_by_order(engine, DAY.date) == {changed: 2, late: 3}


async def test_a_worker_that_hangs_does_not_block_the_date(engine: AsyncEngine) -> None:
    run_id = await create_running_run(engine, DAY.date)
    async with engine.connect() as hanging:
        await build_day(hanging, day=DAY, run_id=run_id, fence=1, idle_timeout=timedelta(seconds=1))

        # Waits for the date's lock until the server has ended the idle transaction.
        built = await build_report(engine, DAY)

        with pytest.raises(DBAPIError):
            await hanging.execute(text("SELECT 1"))
        await hanging.invalidate()
    assert built.revision == 1


async def test_a_worker_that_is_killed_during_a_long_statement_does_not_block_the_date(
    engine: AsyncEngine,
) -> None:
    order_id, run_id = await place_order(engine, 1), await create_running_run(engine, DAY.date)
    async with engine.connect() as blocker, engine.connect() as killed:
        await blocker.execute(
            text("INSERT INTO reports (report_at, order_id, count_product) VALUES (:day, :id, 0)"),
            {"day": DAY.date, "id": order_id},
        )
        building = asyncio.create_task(build_day(killed, day=DAY, run_id=run_id, fence=1))
        await wait_until_blocked(engine, lock_type="transactionid")
        driver = (await killed.get_raw_connection()).driver_connection
        assert driver is not None

        driver.terminate()

        with pytest.raises(DBAPIError):
            await building
        # The server checks the connection of its client every five seconds.
        async with engine.begin() as connection:
            await lock_date(connection, day=DAY, idle_timeout=timedelta(minutes=1))
        await killed.invalidate()


async def test_a_build_with_a_snapshot_from_before_the_lock_is_refused(engine: AsyncEngine) -> None:
    run_id = await create_running_run(engine, DAY.date)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        with pytest.raises(DBAPIError, match="must be called before any query"):
            await build_day(connection, day=DAY, run_id=run_id, fence=1)
