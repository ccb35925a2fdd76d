"""Query plans of a build: an outlier order id does not cause a scan of all history."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from daybook_domain.reports import build_sql
from daybook_domain.reports.build import inspect_day, lock_date, make_write_parameters
from tests.integration.domain.reports.day import DAY, NOON
from tests.support.factories.reports import create_running_run, get_quantity_by_order
from tests.support.factories.shop import create_order, delete_order

pytestmark = pytest.mark.usefixtures("shop")


@pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "fresh statistics"])
async def test_outlier_order_ids_do_not_cause_a_scan_of_all_history(
    engine: AsyncEngine, *, analyzed: bool
) -> None:
    await _add_history(engine, orders=20_000)
    async with engine.begin() as connection:
        for order_id in [1, *range(30_001, 30_301), 99_999]:
            await create_order(connection, created_at=NOON, quantities=(2,), order_id=order_id)
    if analyzed:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("ANALYZE orders, order_items"))

    for statement in ("WRITE_ALL", "INSERT_MISSING", "WRITE_DIFFERENCE"):
        plan = await _plan(engine, statement)
        assert _items_read(plan) < 1000
        assert {node["Node Type"] for node in _nodes(plan)}.isdisjoint({"Seq Scan", "Nested Loop"})
    assert len(await get_quantity_by_order(engine, DAY.date)) == 302
    assert set((await get_quantity_by_order(engine, DAY.date)).values()) == {2}


async def test_the_orders_of_a_day_with_scattered_ids_are_looked_up_one_by_one(
    engine: AsyncEngine,
) -> None:
    await _add_history(engine, orders=20_000)
    async with engine.begin() as connection:
        for order_id in range(100, 20_000, 400):
            await delete_order(connection, order_id)
            await create_order(connection, created_at=NOON, quantities=(2, 3), order_id=order_id)

    plan = await _plan(engine, "WRITE_ALL")

    assert _items_read(plan) == 100
    assert set((await get_quantity_by_order(engine, DAY.date)).values()) == {5}


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
    """Build the day; return the executed plan of the statement `name` of `build_sql`."""
    run_id = await create_running_run(engine, DAY.date)
    async with engine.begin() as connection:
        await lock_date(connection, day=DAY, idle_timeout=timedelta(minutes=1))
        inspection = await inspect_day(connection, day=DAY, run_id=run_id, fence=1)
        return await _explain(connection, name, make_write_parameters(DAY, inspection=inspection))


async def _explain(
    connection: AsyncConnection, name: str, parameters: dict[str, Any]
) -> dict[str, Any]:
    statement = getattr(build_sql, name).text
    explained = await connection.execute(
        text(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}"), parameters
    )
    result = explained.scalar_one()
    plan: dict[str, Any] = (json.loads(result) if isinstance(result, str) else result)[0]["Plan"]
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
