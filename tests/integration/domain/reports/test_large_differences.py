"""Builds of a day from whose report many rows are missing: inserted without arrays."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.reports.build import BuildResult, build_day
from tests.integration.domain.reports.day import DAY, place_order
from tests.support.factories.reports import build_report, create_running_run, get_quantity_by_order
from tests.support.factories.shop import create_order_item, delete_order
from tests.support.postgres import wait_for_blocked_transaction
from tests.support.query_plans import recorded_statements

pytestmark = pytest.mark.usefixtures("shop")

MAX_COLLECTED_ROWS = 3


async def build_with_limit(engine: AsyncEngine) -> BuildResult:
    run_id = await create_running_run(engine, DAY.date)
    async with engine.begin() as connection:
        return await build_day(
            connection, day=DAY, run_id=run_id, fence=1, max_collected_rows=MAX_COLLECTED_ROWS
        )


async def count_passes(engine: AsyncEngine) -> int:
    """Build the day, and return the number of statements that computed its rows."""
    with recorded_statements(engine) as sent:
        await build_with_limit(engine)
    return sum("AS outlier" in statement for statement, _ in sent)


async def test_a_large_and_mixed_difference_is_one_revision_with_all_changes(
    engine: AsyncEngine,
) -> None:
    changed, deleted = await place_order(engine, 1), await place_order(engine, 2)
    await build_report(engine, DAY)
    late = [await place_order(engine, 3) for _ in range(MAX_COLLECTED_ROWS + 2)]
    async with engine.begin() as connection:
        await create_order_item(connection, order_id=changed, quantity=1)
        await delete_order(connection, deleted)

    built = await build_with_limit(engine)

    assert await get_quantity_by_order(engine, DAY.date) == {changed: 2} | dict.fromkeys(late, 3)
    assert (built.revision, built.orders_count, built.products_count) == (2, 6, 17)
    assert (built.added, built.changed, built.removed) == (5, 1, 1)
    async with engine.begin() as connection:
        for table in ("reports", "report_days"):
            await connection.execute(text(f"DELETE FROM {table}"))
    assert (await build_report(engine, DAY)).digest == built.digest


async def test_only_a_large_difference_takes_a_second_pass(engine: AsyncEngine) -> None:
    await place_order(engine, 1)
    absent = await count_passes(engine)
    unchanged = await count_passes(engine)
    await place_order(engine, 1)
    late_order = await count_passes(engine)
    for _ in range(MAX_COLLECTED_ROWS):
        await place_order(engine, 1)
    at_the_limit = await count_passes(engine)
    for _ in range(MAX_COLLECTED_ROWS + 1):
        await place_order(engine, 1)
    above_it = await count_passes(engine)

    assert (absent, unchanged, late_order, at_the_limit, above_it) == (1, 1, 1, 1, 2)


async def test_an_order_that_is_committed_between_the_passes_is_included(
    engine: AsyncEngine,
) -> None:
    first = await place_order(engine, 1)
    await build_report(engine, DAY)
    orders = [await place_order(engine, 2) for _ in range(MAX_COLLECTED_ROWS + 1)]
    async with engine.connect() as blocker:
        # The first pass has its snapshot and blocks at the row of this order.
        await blocker.execute(
            text("INSERT INTO reports (report_at, order_id, count_product) VALUES (:day, :id, 0)"),
            {"day": DAY.date, "id": orders[-1]},
        )
        building = asyncio.create_task(build_with_limit(engine))
        await wait_for_blocked_transaction(engine)
        late = await place_order(engine, 3)
        await blocker.rollback()
    built = await building

    assert await get_quantity_by_order(engine, DAY.date) == {first: 1, late: 3} | dict.fromkeys(
        orders, 2
    )
    assert (built.orders_count, built.products_count, built.added) == (6, 12, 5)
