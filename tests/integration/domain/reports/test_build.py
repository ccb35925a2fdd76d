"""Builds of a day: rows, revisions, manifest and the finished run."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.reports.build import build_day
from daybook_domain.reports.business_day import business_day
from tests.integration.domain.reports.day import DAY, NOON, place_order
from tests.support.factories.reports import (
    build_report,
    create_running_run,
    find_report_day,
    get_quantity_by_order,
    list_report_lines,
)
from tests.support.factories.shop import create_order, create_order_item, delete_order

pytestmark = pytest.mark.usefixtures("shop")


async def test_a_day_has_a_row_for_each_order_and_none_for_others(engine: AsyncEngine) -> None:
    tick = timedelta(microseconds=1)
    first = await place_order(engine, 1, 2, 3, at=DAY.starts_at)
    last = await place_order(engine, 4, at=DAY.ends_at - tick)
    empty = await place_order(engine, at=NOON)
    await place_order(engine, 5, at=DAY.starts_at - tick)
    await place_order(engine, 6, at=DAY.ends_at)

    built = await build_report(engine, DAY)

    assert await get_quantity_by_order(engine, DAY.date) == {first: 6, last: 4, empty: 0}
    assert (built.revision, built.orders_count, built.products_count) == (1, 3, 10)
    assert (built.added, built.changed, built.removed) == (3, 0, 0)
    assert built.has_changes


async def test_rows_are_stored_in_the_order_of_order_ids(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        for order_id in (30, 10, 20):
            await create_order(connection, created_at=NOON, order_id=order_id)

    await build_report(engine, DAY)

    found = await list_report_lines(engine, DAY.date)
    assert [line.order_id for line in sorted(found, key=lambda line: line.id)] == [10, 20, 30]


async def test_a_day_without_orders_has_a_first_revision_and_no_rows(engine: AsyncEngine) -> None:
    built = await build_report(engine, DAY)
    again = await build_report(engine, DAY)

    assert await list_report_lines(engine, DAY.date) == []
    assert (built.revision, again.revision) == (1, 1)
    assert (built.orders_count, built.products_count, built.digest) == (0, 0, "0" * 16)
    assert not built.has_changes


async def test_a_date_that_its_zone_skipped_is_empty(engine: AsyncEngine) -> None:
    skipped = business_day(date(2011, 12, 30), timezone="Pacific/Apia")
    await place_order(engine, 1, at=skipped.starts_at)

    built = await build_report(engine, skipped)

    assert (built.revision, built.orders_count) == (1, 0)


async def test_the_first_orders_of_an_empty_day_are_its_second_revision(
    engine: AsyncEngine,
) -> None:
    await build_report(engine, DAY)
    order_id = await place_order(engine, 2)

    built = await build_report(engine, DAY)

    assert (built.revision, built.added) == (2, 1)
    assert await get_quantity_by_order(engine, DAY.date) == {order_id: 2}


async def test_an_unchanged_rebuild_writes_no_row(engine: AsyncEngine) -> None:
    for quantity in range(1, 20):
        await place_order(engine, quantity)
    first = await build_report(engine, DAY)
    rows, manifest = (
        await list_report_lines(engine, DAY.date),
        await find_report_day(engine, DAY.date),
    )

    second = await build_report(engine, DAY)

    assert await list_report_lines(engine, DAY.date) == rows
    assert (second.revision, second.digest) == (first.revision, first.digest)
    assert not second.has_changes
    after = await find_report_day(engine, DAY.date)
    assert manifest is not None
    assert after is not None
    assert (after.built_at, after.last_run_id) == (manifest.built_at, manifest.last_run_id)
    assert after.data_through > manifest.data_through


async def test_a_late_order_adds_its_row_and_changes_no_other(engine: AsyncEngine) -> None:
    await place_order(engine, 1)
    first = await build_report(engine, DAY)
    rows = await list_report_lines(engine, DAY.date)
    late = await place_order(engine, 5, 6)

    built = await build_report(engine, DAY)

    *others, new = await list_report_lines(engine, DAY.date)
    assert others == rows
    assert (new.order_id, new.count_product) == (late, 11)
    assert (built.revision, built.added, built.changed, built.removed) == (2, 1, 0, 0)
    assert built.digest != first.digest


async def test_a_changed_quantity_updates_its_row_in_place(engine: AsyncEngine) -> None:
    unchanged, changed = await place_order(engine, 1), await place_order(engine, 2)
    await build_report(engine, DAY)
    before = {line.order_id: line for line in await list_report_lines(engine, DAY.date)}
    async with engine.begin() as connection:
        await create_order_item(connection, order_id=changed, quantity=40)

    built = await build_report(engine, DAY)

    after = {line.order_id: line for line in await list_report_lines(engine, DAY.date)}
    assert after[unchanged] == before[unchanged]
    assert after[changed].count_product == 42
    assert after[changed].id == before[changed].id
    assert after[changed].created_at == before[changed].created_at
    assert (built.revision, built.added, built.changed, built.removed) == (2, 0, 1, 0)


async def test_the_row_of_a_deleted_order_is_removed(engine: AsyncEngine) -> None:
    remaining, deleted = await place_order(engine, 1), await place_order(engine, 2)
    await build_report(engine, DAY)
    before = await list_report_lines(engine, DAY.date)
    async with engine.begin() as connection:
        await delete_order(connection, deleted)

    built = await build_report(engine, DAY)

    assert await list_report_lines(engine, DAY.date) == [
        line for line in before if line.order_id == remaining
    ]
    assert (built.revision, built.added, built.changed, built.removed) == (2, 0, 0, 1)


async def test_several_kinds_of_change_are_one_revision(engine: AsyncEngine) -> None:
    changed, deleted = await place_order(engine, 1), await place_order(engine, 2)
    await build_report(engine, DAY)
    late = await place_order(engine, 3)
    async with engine.begin() as connection:
        await delete_order(connection, deleted)
        await create_order_item(connection, order_id=changed, quantity=1)

    built = await build_report(engine, DAY)

    assert await get_quantity_by_order(engine, DAY.date) == {changed: 2, late: 3}
    assert (built.revision, built.added, built.changed, built.removed) == (2, 1, 1, 1)


async def test_a_build_does_not_change_the_report_of_another_date(engine: AsyncEngine) -> None:
    next_day = business_day(date(2026, 3, 30), timezone="Europe/Berlin")
    await place_order(engine, 1, at=next_day.starts_at)
    await build_report(engine, next_day)
    rows = await list_report_lines(engine, next_day.date)
    deleted = await place_order(engine, 2)
    await build_report(engine, DAY)
    async with engine.begin() as connection:
        await delete_order(connection, deleted)

    await build_report(engine, DAY)

    assert await list_report_lines(engine, next_day.date) == rows


async def test_a_rebuild_has_the_digest_of_a_first_build_of_the_same_orders(
    engine: AsyncEngine,
) -> None:
    changed = await place_order(engine, 1)
    await build_report(engine, DAY)
    await place_order(engine, 7)
    async with engine.begin() as connection:
        await create_order_item(connection, order_id=changed, quantity=1)
    rebuilt = await build_report(engine, DAY)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM reports"))

    first_build = await build_report(engine, DAY)

    assert first_build.digest == rebuilt.digest
    assert first_build.products_count == rebuilt.products_count


async def test_a_rebuild_repairs_damaged_rows(engine: AsyncEngine) -> None:
    orders = [await place_order(engine, quantity) for quantity in (1, 2, 3)]
    first = await build_report(engine, DAY)
    async with engine.begin() as connection:
        await connection.execute(
            text("DELETE FROM reports WHERE order_id = :id"), {"id": orders[0]}
        )
        await connection.execute(
            text("UPDATE reports SET count_product = 99 WHERE order_id = :id"), {"id": orders[1]}
        )
        await connection.execute(text("UPDATE report_days SET orders_count = 99, digest = 'x'"))

    repaired = await build_report(engine, DAY)

    assert await get_quantity_by_order(engine, DAY.date) == dict(
        zip(orders, (1, 2, 3), strict=True)
    )
    assert (repaired.orders_count, repaired.digest) == (first.orders_count, first.digest)


async def test_a_day_is_sealed_by_the_first_build_after_its_end(engine: AsyncEngine) -> None:
    await place_order(engine, 1)
    not_ended = replace(DAY, ends_at=datetime(2999, 1, 1, tzinfo=UTC))
    provisional = await build_report(engine, not_ended)
    assert not provisional.sealed
    before = await find_report_day(engine, DAY.date)
    assert before is not None
    assert before.sealed_at is None

    sealed = await build_report(engine, DAY)

    assert sealed.sealed
    assert sealed.revision == provisional.revision
    after = await find_report_day(engine, DAY.date)
    assert after is not None
    assert after.sealed_at is not None
    assert after.built_at == before.built_at


async def test_a_rebuild_does_not_change_when_a_day_was_sealed(engine: AsyncEngine) -> None:
    await build_report(engine, DAY)
    before = await find_report_day(engine, DAY.date)
    await place_order(engine, 1)

    built = await build_report(engine, DAY)

    after = await find_report_day(engine, DAY.date)
    assert before is not None
    assert after is not None
    assert built.sealed
    assert after.sealed_at == before.sealed_at
    assert after.built_at > before.built_at


async def test_a_finished_run_has_the_result_of_its_build(engine: AsyncEngine) -> None:
    await place_order(engine, 1)
    run_id = await create_running_run(engine, DAY.date, fence=3)
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
    manifest = await find_report_day(engine, DAY.date)
    assert manifest is not None
    assert manifest.last_run_id == run_id


async def test_data_through_does_not_go_back_with_the_clock(engine: AsyncEngine) -> None:
    await build_report(engine, DAY)
    ahead = datetime.now(UTC) + timedelta(days=1)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE report_days SET data_through = :at"), {"at": ahead})

    built = await build_report(engine, DAY)

    day = await find_report_day(engine, DAY.date)
    assert day is not None
    assert (built.data_through, day.data_through) == (ahead, ahead)
