"""Builds of a day: rows, revisions, manifest and the finished run."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.reports.build import build_day
from daybook_domain.reports.business_day import business_day
from tests.integration.domain.reports.day import DAY, NOON, place_order
from tests.support.shop import (
    add_item,
    add_order,
    build,
    delete_order,
    kept_day,
    lines,
    start_run,
    sums,
)

pytestmark = pytest.mark.usefixtures("shop")


async def test_a_day_has_a_row_for_each_order_and_none_for_others(engine: AsyncEngine) -> None:
    tick = timedelta(microseconds=1)
    first = await place_order(engine, 1, 2, 3, at=DAY.starts_at)
    last = await place_order(engine, 4, at=DAY.ends_at - tick)
    empty = await place_order(engine, at=NOON)
    await place_order(engine, 5, at=DAY.starts_at - tick)
    await place_order(engine, 6, at=DAY.ends_at)

    built = await build(engine, DAY)

    assert await sums(engine, DAY.date) == {first: 6, last: 4, empty: 0}
    assert (built.revision, built.orders_count, built.products_count) == (1, 3, 10)
    assert (built.added, built.changed, built.removed) == (3, 0, 0)
    assert built.has_changes


async def test_rows_are_stored_in_the_order_of_order_ids(engine: AsyncEngine) -> None:
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
    assert not built.has_changes


async def test_a_date_that_its_zone_skipped_is_empty(engine: AsyncEngine) -> None:
    skipped = business_day(date(2011, 12, 30), timezone="Pacific/Apia")
    await place_order(engine, 1, at=skipped.starts_at)

    built = await build(engine, skipped)

    assert (built.revision, built.orders_count) == (1, 0)


async def test_the_first_orders_of_an_empty_day_are_its_second_revision(
    engine: AsyncEngine,
) -> None:
    await build(engine, DAY)
    order_id = await place_order(engine, 2)

    built = await build(engine, DAY)

    assert (built.revision, built.added) == (2, 1)
    assert await sums(engine, DAY.date) == {order_id: 2}


async def test_an_unchanged_rebuild_writes_no_row(engine: AsyncEngine) -> None:
    for quantity in range(1, 20):
        await place_order(engine, quantity)
    first = await build(engine, DAY)
    rows, manifest = await lines(engine, DAY.date), await kept_day(engine, DAY.date)

    second = await build(engine, DAY)

    assert await lines(engine, DAY.date) == rows
    assert (second.revision, second.digest) == (first.revision, first.digest)
    assert not second.has_changes
    after = await kept_day(engine, DAY.date)
    assert manifest is not None
    assert after is not None
    assert (after.built_at, after.last_run_id) == (manifest.built_at, manifest.last_run_id)
    assert after.data_through > manifest.data_through


async def test_a_late_order_adds_its_row_and_changes_no_other(engine: AsyncEngine) -> None:
    await place_order(engine, 1)
    first = await build(engine, DAY)
    rows = await lines(engine, DAY.date)
    late = await place_order(engine, 5, 6)

    built = await build(engine, DAY)

    *others, new = await lines(engine, DAY.date)
    assert others == rows
    assert (new.order_id, new.count_product) == (late, 11)
    assert (built.revision, built.added, built.changed, built.removed) == (2, 1, 0, 0)
    assert built.digest != first.digest


async def test_a_changed_quantity_updates_its_row_in_place(engine: AsyncEngine) -> None:
    unchanged, changed = await place_order(engine, 1), await place_order(engine, 2)
    await build(engine, DAY)
    before = {line.order_id: line for line in await lines(engine, DAY.date)}
    async with engine.begin() as connection:
        await add_item(connection, order_id=changed, quantity=40)

    built = await build(engine, DAY)

    after = {line.order_id: line for line in await lines(engine, DAY.date)}
    assert after[unchanged] == before[unchanged]
    assert after[changed].count_product == 42
    assert after[changed].id == before[changed].id
    assert after[changed].created_at == before[changed].created_at
    assert (built.revision, built.added, built.changed, built.removed) == (2, 0, 1, 0)


async def test_the_row_of_a_deleted_order_is_removed(engine: AsyncEngine) -> None:
    remaining, deleted = await place_order(engine, 1), await place_order(engine, 2)
    await build(engine, DAY)
    before = await lines(engine, DAY.date)
    async with engine.begin() as connection:
        await delete_order(connection, deleted)

    built = await build(engine, DAY)

    assert await lines(engine, DAY.date) == [line for line in before if line.order_id == remaining]
    assert (built.revision, built.added, built.changed, built.removed) == (2, 0, 0, 1)


async def test_several_kinds_of_change_are_one_revision(engine: AsyncEngine) -> None:
    changed, deleted = await place_order(engine, 1), await place_order(engine, 2)
    await build(engine, DAY)
    late = await place_order(engine, 3)
    async with engine.begin() as connection:
        await delete_order(connection, deleted)
        await add_item(connection, order_id=changed, quantity=1)

    built = await build(engine, DAY)

    assert await sums(engine, DAY.date) == {changed: 2, late: 3}
    assert (built.revision, built.added, built.changed, built.removed) == (2, 1, 1, 1)


async def test_a_build_does_not_change_the_report_of_another_date(engine: AsyncEngine) -> None:
    next_day = business_day(date(2026, 3, 30), timezone="Europe/Berlin")
    await place_order(engine, 1, at=next_day.starts_at)
    await build(engine, next_day)
    rows = await lines(engine, next_day.date)
    deleted = await place_order(engine, 2)
    await build(engine, DAY)
    async with engine.begin() as connection:
        await delete_order(connection, deleted)

    await build(engine, DAY)

    assert await lines(engine, next_day.date) == rows


async def test_a_rebuild_has_the_digest_of_a_first_build_of_the_same_orders(
    engine: AsyncEngine,
) -> None:
    changed = await place_order(engine, 1)
    await build(engine, DAY)
    await place_order(engine, 7)
    async with engine.begin() as connection:
        await add_item(connection, order_id=changed, quantity=1)
    rebuilt = await build(engine, DAY)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM reports"))

    first_build = await build(engine, DAY)

    assert first_build.digest == rebuilt.digest
    assert first_build.products_count == rebuilt.products_count


async def test_a_rebuild_repairs_damaged_rows(engine: AsyncEngine) -> None:
    orders = [await place_order(engine, quantity) for quantity in (1, 2, 3)]
    first = await build(engine, DAY)
    async with engine.begin() as connection:
        await connection.execute(
            text("DELETE FROM reports WHERE order_id = :id"), {"id": orders[0]}
        )
        await connection.execute(
            text("UPDATE reports SET count_product = 99 WHERE order_id = :id"), {"id": orders[1]}
        )
        await connection.execute(text("UPDATE report_days SET orders_count = 99, digest = 'x'"))

    repaired = await build(engine, DAY)

    assert await sums(engine, DAY.date) == dict(zip(orders, (1, 2, 3), strict=True))
    assert (repaired.orders_count, repaired.digest) == (first.orders_count, first.digest)


async def test_a_day_is_sealed_by_the_first_build_after_its_end(engine: AsyncEngine) -> None:
    await place_order(engine, 1)
    not_ended = replace(DAY, ends_at=datetime(2999, 1, 1, tzinfo=UTC))
    provisional = await build(engine, not_ended)
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


async def test_a_rebuild_does_not_change_when_a_day_was_sealed(engine: AsyncEngine) -> None:
    await build(engine, DAY)
    before = await kept_day(engine, DAY.date)
    await place_order(engine, 1)

    built = await build(engine, DAY)

    after = await kept_day(engine, DAY.date)
    assert before is not None
    assert after is not None
    assert built.sealed
    assert after.sealed_at == before.sealed_at
    assert after.built_at > before.built_at


async def test_a_finished_run_has_the_result_of_its_build(engine: AsyncEngine) -> None:
    await place_order(engine, 1)
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
    manifest = await kept_day(engine, DAY.date)
    assert manifest is not None
    assert manifest.last_run_id == run_id
