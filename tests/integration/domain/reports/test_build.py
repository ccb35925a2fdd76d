"""Does a build do what it promises, also when others are at work?"""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from daybook_domain.reports import build as room
from daybook_domain.reports import build_sql
from daybook_domain.reports.build import BuildResult, build_day
from daybook_domain.reports.business_day import BusinessDay, business_day
from daybook_domain.reports.errors import LeaseLost
from tests.support.shop import (
    add_item,
    add_order,
    build,
    delete_order,
    kept_day,
    lines,
    lines_seen,
    open_shop,
    start_run,
    sums,
)

DAY = business_day(date(2026, 3, 29), timezone="Europe/Berlin")
NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
async def shop(engine: AsyncEngine) -> None:
    await open_shop(engine)


async def _order(engine: AsyncEngine, *quantities: int, at: datetime = NOON) -> int:
    async with engine.begin() as connection:
        return await add_order(connection, created_at=at, quantities=quantities)


async def _waits_for_a_lock(engine: AsyncEngine, *, kind: str) -> None:
    """Return as soon as somebody waits for a lock of `kind`."""
    waiting = text(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE NOT granted AND locktype = :kind AND datname = current_database()"
    )
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        while (await connection.execute(waiting, {"kind": kind})).scalar_one() == 0:
            pass


async def test_a_day_has_a_row_for_each_order_and_none_for_others(engine: AsyncEngine) -> None:
    tick = timedelta(microseconds=1)
    first = await _order(engine, 1, 2, 3, at=DAY.starts_at)
    last = await _order(engine, 4, at=DAY.ends_at - tick)
    empty = await _order(engine, at=NOON)
    await _order(engine, 5, at=DAY.starts_at - tick)
    await _order(engine, 6, at=DAY.ends_at)

    built = await build(engine, DAY)

    assert await sums(engine, DAY.date) == {first: 6, last: 4, empty: 0}
    assert (built.revision, built.orders_count, built.products_count) == (1, 3, 10)
    assert (built.added, built.changed, built.removed) == (3, 0, 0)
    assert built.changed_anything


async def test_rows_are_stored_in_the_order_of_orders(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        for order_id in (30, 10, 20):
            await add_order(connection, created_at=NOON, order_id=order_id)

    await build(engine, DAY)

    found = await lines(engine, DAY.date)
    assert [line.order_id for line in sorted(found, key=lambda line: line.id)] == [10, 20, 30]


async def test_a_day_without_orders_has_a_first_revision_and_no_rows(engine: AsyncEngine) -> None:
    built = await build(engine, DAY)
    again = await build(engine, DAY)

    assert await lines(engine, DAY.date) == []
    assert (built.revision, again.revision) == (1, 1)
    assert (built.orders_count, built.products_count, built.digest) == (0, 0, "0" * 16)
    assert not built.changed_anything


async def test_a_date_that_its_zone_never_had_is_empty(engine: AsyncEngine) -> None:
    never = business_day(date(2011, 12, 30), timezone="Pacific/Apia")
    await _order(engine, 1, at=never.starts_at)

    built = await build(engine, never)

    assert (built.revision, built.orders_count) == (1, 0)


async def test_orders_of_a_day_that_was_empty_are_its_second_revision(engine: AsyncEngine) -> None:
    await build(engine, DAY)
    order = await _order(engine, 2)

    built = await build(engine, DAY)

    assert (built.revision, built.added) == (2, 1)
    assert await sums(engine, DAY.date) == {order: 2}


async def test_an_unchanged_rebuild_writes_no_row(engine: AsyncEngine) -> None:
    for quantity in range(1, 20):
        await _order(engine, quantity)
    first = await build(engine, DAY)
    stored, known = await lines(engine, DAY.date), await kept_day(engine, DAY.date)

    second = await build(engine, DAY)

    assert await lines(engine, DAY.date) == stored
    assert (second.revision, second.digest) == (first.revision, first.digest)
    assert not second.changed_anything
    after = await kept_day(engine, DAY.date)
    assert known is not None
    assert after is not None
    assert (after.built_at, after.last_run_id) == (known.built_at, known.last_run_id)
    assert after.data_through > known.data_through


async def test_a_late_order_adds_its_row_and_touches_no_other(engine: AsyncEngine) -> None:
    await _order(engine, 1)
    first = await build(engine, DAY)
    stored = await lines(engine, DAY.date)
    late = await _order(engine, 5, 6)

    built = await build(engine, DAY)

    *others, new = await lines(engine, DAY.date)
    assert others == stored
    assert (new.order_id, new.count_product) == (late, 11)
    assert (built.revision, built.added, built.changed, built.removed) == (2, 1, 0, 0)
    assert built.digest != first.digest


async def test_a_changed_quantity_updates_its_row_in_place(engine: AsyncEngine) -> None:
    kept, grown = await _order(engine, 1), await _order(engine, 2)
    await build(engine, DAY)
    before = {line.order_id: line for line in await lines(engine, DAY.date)}
    async with engine.begin() as connection:
        await add_item(connection, order_id=grown, quantity=40)

    built = await build(engine, DAY)

    after = {line.order_id: line for line in await lines(engine, DAY.date)}
    assert after[kept] == before[kept]
    assert after[grown].count_product == 42
    assert after[grown].id == before[grown].id
    assert after[grown].created_at == before[grown].created_at
    assert (built.revision, built.added, built.changed, built.removed) == (2, 0, 1, 0)


async def test_a_deleted_order_takes_its_row_along(engine: AsyncEngine) -> None:
    kept, gone = await _order(engine, 1), await _order(engine, 2)
    await build(engine, DAY)
    before = await lines(engine, DAY.date)
    async with engine.begin() as connection:
        await delete_order(connection, gone)

    built = await build(engine, DAY)

    assert await lines(engine, DAY.date) == [line for line in before if line.order_id == kept]
    assert (built.revision, built.added, built.changed, built.removed) == (2, 0, 0, 1)


async def test_several_kinds_of_change_are_one_revision(engine: AsyncEngine) -> None:
    grown, gone = await _order(engine, 1), await _order(engine, 2)
    await build(engine, DAY)
    late = await _order(engine, 3)
    async with engine.begin() as connection:
        await delete_order(connection, gone)
        await add_item(connection, order_id=grown, quantity=1)

    built = await build(engine, DAY)

    assert await sums(engine, DAY.date) == {grown: 2, late: 3}
    assert (built.revision, built.added, built.changed, built.removed) == (2, 1, 1, 1)


async def test_the_report_of_another_date_stays_as_it_is(engine: AsyncEngine) -> None:
    next_day = business_day(date(2026, 3, 30), timezone="Europe/Berlin")
    await _order(engine, 1, at=next_day.starts_at)
    await build(engine, next_day)
    stored = await lines(engine, next_day.date)
    gone = await _order(engine, 2)
    await build(engine, DAY)
    async with engine.begin() as connection:
        await delete_order(connection, gone)

    await build(engine, DAY)

    assert await lines(engine, next_day.date) == stored


async def test_what_was_built_by_difference_has_the_digest_of_a_first_build(
    engine: AsyncEngine,
) -> None:
    grown = await _order(engine, 1)
    await build(engine, DAY)
    await _order(engine, 7)
    async with engine.begin() as connection:
        await add_item(connection, order_id=grown, quantity=1)
    by_difference = await build(engine, DAY)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM reports"))

    from_nothing = await build(engine, DAY)

    assert from_nothing.digest == by_difference.digest
    assert from_nothing.products_count == by_difference.products_count


async def test_rows_that_somebody_damaged_are_mended(engine: AsyncEngine) -> None:
    orders = [await _order(engine, quantity) for quantity in (1, 2, 3)]
    first = await build(engine, DAY)
    async with engine.begin() as connection:
        await connection.execute(
            text("DELETE FROM reports WHERE order_id = :id"), {"id": orders[0]}
        )
        await connection.execute(
            text("UPDATE reports SET count_product = 99 WHERE order_id = :id"), {"id": orders[1]}
        )
        await connection.execute(text("UPDATE report_days SET orders_count = 99, digest = 'x'"))

    mended = await build(engine, DAY)

    assert await sums(engine, DAY.date) == dict(zip(orders, (1, 2, 3), strict=True))
    assert (mended.orders_count, mended.digest) == (first.orders_count, first.digest)


async def test_a_day_is_sealed_by_the_first_build_after_its_end(engine: AsyncEngine) -> None:
    await _order(engine, 1)
    going_on = BusinessDay(DAY.date, DAY.starts_at, datetime(2999, 1, 1, tzinfo=UTC))
    provisional = await build(engine, going_on)
    assert not provisional.sealed
    before = await kept_day(engine, DAY.date)
    assert before is not None
    assert before.sealed_at is None

    sealed = await build(engine, DAY)

    assert sealed.sealed
    assert sealed.revision == provisional.revision
    after = await kept_day(engine, DAY.date)
    assert after is not None
    assert after.sealed_at is not None
    assert after.built_at == before.built_at


async def test_a_sealed_day_keeps_the_time_of_its_sealing(engine: AsyncEngine) -> None:
    await build(engine, DAY)
    before = await kept_day(engine, DAY.date)
    await _order(engine, 1)

    built = await build(engine, DAY)

    after = await kept_day(engine, DAY.date)
    assert before is not None
    assert after is not None
    assert built.sealed
    assert after.sealed_at == before.sealed_at
    assert after.built_at > before.built_at


async def test_a_finished_run_tells_what_it_did(engine: AsyncEngine) -> None:
    await _order(engine, 1)
    run_id = await start_run(engine, DAY.date, fence=3)
    async with engine.begin() as connection:
        await build_day(connection, day=DAY, run_id=run_id, fence=3)

    async with engine.connect() as connection:
        run = (await connection.execute(text("SELECT * FROM report_runs"))).one()
    assert (run.state, run.revision, run.added, run.changed, run.removed) == (
        "succeeded",
        1,
        1,
        0,
        0,
    )
    assert run.lease_until is None
    assert run.finished_at is not None
    known = await kept_day(engine, DAY.date)
    assert known is not None
    assert known.last_run_id == run_id


async def test_a_worker_with_an_old_fence_leaves_nothing(engine: AsyncEngine) -> None:
    await _order(engine, 1)
    run_id = await start_run(engine, DAY.date, fence=2)

    with pytest.raises(LeaseLost):
        async with engine.begin() as connection:
            await build_day(connection, day=DAY, run_id=run_id, fence=1)

    assert await lines(engine, DAY.date) == []
    assert await kept_day(engine, DAY.date) is None


async def test_a_worker_that_loses_its_lease_while_building_leaves_nothing(
    engine: AsyncEngine,
) -> None:
    await _order(engine, 1)
    run_id = await start_run(engine, DAY.date)

    async def build_it() -> None:
        async with engine.begin() as connection:
            await build_day(connection, day=DAY, run_id=run_id, fence=1)

    async with engine.connect() as obstacle:
        # The build has its rows and comes to a halt at the line about the day.
        await obstacle.execute(
            text(
                "INSERT INTO report_days (report_date, revision, orders_count, products_count,"
                " digest, data_through, built_at, announced_revision)"
                " VALUES (:day, 9, 0, 0, '', now(), now(), 0)"
            ),
            {"day": DAY.date},
        )
        building = asyncio.create_task(build_it())
        await _waits_for_a_lock(engine, kind="transactionid")
        # Until its last statement a build keeps nobody from the run's row.
        async with engine.begin() as reaper:
            await reaper.execute(text("SET LOCAL lock_timeout = '2s'"))
            await reaper.execute(text("UPDATE report_runs SET fence = fence + 1"))
        await obstacle.rollback()

    with pytest.raises(LeaseLost):
        await building
    assert await lines(engine, DAY.date) == []
    assert await kept_day(engine, DAY.date) is None


async def test_two_builds_of_a_date_at_once_make_one_revision(engine: AsyncEngine) -> None:
    orders = {await _order(engine, quantity): quantity for quantity in range(1, 30)}

    results: list[BuildResult] = await asyncio.gather(*(build(engine, DAY) for _ in range(4)))

    assert await sums(engine, DAY.date) == orders
    assert {built.revision for built in results} == {1}
    assert sorted(built.added for built in results) == [0, 0, 0, 29]
    assert len({built.digest for built in results}) == 1


async def test_a_build_that_waited_sees_what_was_committed_meanwhile(engine: AsyncEngine) -> None:
    early = await _order(engine, 1)
    run_id = await start_run(engine, DAY.date)
    async with engine.begin() as connection:
        await build_day(connection, day=DAY, run_id=run_id, fence=1)
        waiting = asyncio.create_task(build(engine, DAY))
        await _waits_for_a_lock(engine, kind="advisory")
        late = await _order(engine, 2)

    built = await waiting

    assert (built.revision, built.added) == (2, 1)
    assert await sums(engine, DAY.date) == {early: 1, late: 2}


async def test_builds_of_two_dates_do_not_wait_for_each_other(engine: AsyncEngine) -> None:
    next_day = business_day(date(2026, 3, 30), timezone="Europe/Berlin")
    run_id = await start_run(engine, DAY.date)
    async with engine.begin() as connection:
        await build_day(connection, day=DAY, run_id=run_id, fence=1)

        built = await build(engine, next_day)

    assert built.revision == 1


async def test_an_order_that_arrives_during_the_build_is_wholly_out_or_in(
    engine: AsyncEngine,
) -> None:
    early = await _order(engine, 1)
    async with engine.connect() as obstacle:
        # The build has its snapshot and comes to a halt at the row of this order.
        await obstacle.execute(
            text("INSERT INTO reports (report_at, order_id, count_product) VALUES (:day, :id, 0)"),
            {"day": DAY.date, "id": early},
        )
        building = asyncio.create_task(build(engine, DAY))
        await _waits_for_a_lock(engine, kind="transactionid")
        late = await _order(engine, 2, 3)
        await obstacle.rollback()
    built = await building

    assert await sums(engine, DAY.date) == {early: 1}
    assert (built.orders_count, built.products_count) == (1, 1)
    assert (await build(engine, DAY)).added == 1
    assert await sums(engine, DAY.date) == {early: 1, late: 5}


async def test_a_reader_sees_the_day_before_a_build_or_the_day_after(engine: AsyncEngine) -> None:
    grown, gone = await _order(engine, 1), await _order(engine, 2)
    await build(engine, DAY)
    before = await lines(engine, DAY.date)
    late = await _order(engine, 3)
    async with engine.begin() as connection:
        await delete_order(connection, gone)
        await add_item(connection, order_id=grown, quantity=1)
    run_id = await start_run(engine, DAY.date)

    async with engine.connect() as reader:
        await reader.execution_options(isolation_level="REPEATABLE READ")
        assert await lines_seen(reader, DAY.date) == before
        async with engine.begin() as connection:
            await build_day(connection, day=DAY, run_id=run_id, fence=1)
            assert await lines(engine, DAY.date) == before
        assert await lines_seen(reader, DAY.date) == before
        revision = await reader.execute(text("SELECT revision FROM report_days"))
        assert revision.scalar_one() == 1

    assert await sums(engine, DAY.date) == {grown: 2, late: 3}


async def test_a_worker_that_hangs_does_not_keep_the_date(engine: AsyncEngine) -> None:
    run_id = await start_run(engine, DAY.date)
    async with engine.connect() as hanging:
        await build_day(hanging, day=DAY, run_id=run_id, fence=1, idle_timeout=timedelta(seconds=1))

        # Waits for the date's lock until the server has ended the idle transaction.
        built = await build(engine, DAY)

        with pytest.raises(DBAPIError):
            await hanging.execute(text("SELECT 1"))
        await hanging.invalidate()
    assert built.revision == 1


async def test_a_worker_that_dies_during_a_long_statement_does_not_keep_the_date(
    engine: AsyncEngine,
) -> None:
    order, run_id = await _order(engine, 1), await start_run(engine, DAY.date)
    async with engine.connect() as obstacle, engine.connect() as dying:
        await obstacle.execute(
            text("INSERT INTO reports (report_at, order_id, count_product) VALUES (:day, :id, 0)"),
            {"day": DAY.date, "id": order},
        )
        building = asyncio.create_task(build_day(dying, day=DAY, run_id=run_id, fence=1))
        await _waits_for_a_lock(engine, kind="transactionid")
        driver = (await dying.get_raw_connection()).driver_connection
        assert driver is not None

        driver.terminate()

        with pytest.raises(DBAPIError):
            await building
        # The server looks after its client every five seconds.
        async with engine.begin() as next_one:
            await room._guard_and_lock(next_one, day=DAY, idle_timeout=timedelta(minutes=1))
        await dying.invalidate()


async def test_a_snapshot_from_before_the_lock_is_refused(engine: AsyncEngine) -> None:
    run_id = await start_run(engine, DAY.date)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        with pytest.raises(DBAPIError, match="must be called before any query"):
            await build_day(connection, day=DAY, run_id=run_id, fence=1)


@pytest.mark.parametrize("analysed", [False, True], ids=["no statistics", "fresh statistics"])
async def test_orders_with_far_ids_do_not_drag_in_all_history(
    engine: AsyncEngine, *, analysed: bool
) -> None:
    await _add_history(engine, orders=20_000)
    async with engine.begin() as connection:
        for order_id in [1, *range(30_001, 30_301), 99_999]:
            await add_order(connection, created_at=NOON, quantities=(2,), order_id=order_id)
    if analysed:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("ANALYZE orders, order_items"))

    for statement in ("WRITE_ALL", "WRITE_DIFFERENCE"):
        plan = await _plan(engine, statement)
        assert _items_read(plan) < 1000
        assert {node["Node Type"] for node in _nodes(plan)}.isdisjoint({"Seq Scan", "Nested Loop"})
    assert len(await sums(engine, DAY.date)) == 302
    assert set((await sums(engine, DAY.date)).values()) == {2}


async def test_a_day_strewn_over_all_history_looks_each_order_up(engine: AsyncEngine) -> None:
    await _add_history(engine, orders=20_000)
    async with engine.begin() as connection:
        for order_id in range(100, 20_000, 400):
            await delete_order(connection, order_id)
            await add_order(connection, created_at=NOON, quantities=(2, 3), order_id=order_id)

    plan = await _plan(engine, "WRITE_ALL")

    assert _items_read(plan) == 100
    assert set((await sums(engine, DAY.date)).values()) == {5}


async def _add_history(engine: AsyncEngine, *, orders: int) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO orders (id, user_id, delivery_address_id, total_price, status,"
                " created_at) OVERRIDING SYSTEM VALUE SELECT n, 1, 1, 1, 'paid',"
                " timestamptz '2026-01-01' + n * interval '1 minute'"
                " FROM generate_series(2, :orders) AS n"
            ),
            {"orders": orders},
        )
        await connection.execute(
            text(
                "INSERT INTO order_items (order_id, product_id, quantity, price_at_order)"
                " SELECT id, 1, 1, 1 FROM orders"
            )
        )


async def _plan(engine: AsyncEngine, name: str) -> dict[str, Any]:
    """Build the day, and return how Postgres ran the statement `name` of the build."""
    run_id = await start_run(engine, DAY.date)
    async with engine.begin() as connection:
        await room._guard_and_lock(connection, day=DAY, idle_timeout=timedelta(minutes=1))
        seen = await room._one(
            connection,
            build_sql.INSPECT,
            **room._bounds(DAY),
            report_date=DAY.date,
            run_id=run_id,
            fence=1,
        )
        return await _explain(connection, name, room._orders(DAY, seen))


async def _explain(
    connection: AsyncConnection, name: str, values: dict[str, Any]
) -> dict[str, Any]:
    statement = getattr(build_sql, name).text
    explained = await connection.execute(
        text(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}"), values
    )
    answer = explained.scalar_one()
    plan: dict[str, Any] = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def _items_read(plan: dict[str, Any]) -> float:
    return sum(
        float(node["Actual Rows"]) * float(node["Actual Loops"])
        for node in _nodes(plan)
        if node.get("Relation Name") == "order_items"
    )
