"""Changes and deletion of orders: status, items, stock and reports."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.errors import DaybookError
from daybook_domain.orders import queries, service
from daybook_domain.orders.errors import (
    AddressOfAnotherUser,
    OrderNotFound,
    OrderReported,
    OutOfStock,
    StatusConflict,
    StockLimitExceeded,
    TotalTooLarge,
    UnknownReference,
)
from daybook_domain.orders.models import Order, OrderStatus
from daybook_domain.orders.order_placement import PlacedOrder, place_orders
from daybook_domain.orders.order_validation import NewItem, NewOrder
from daybook_domain.orders.service import OrderChanges
from daybook_domain.reports.business_day import business_day
from daybook_domain.runs.models import RunState, RunTrigger
from daybook_domain.validation import MAX_INTEGER
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.reports import build_report, get_quantity_by_order
from tests.support.factories.runs import list_all_runs
from tests.support.factories.shop import get_stock, reset_shop, set_stock
from tests.support.postgres import wait_for_blocked_transaction

PENDING, PAID, SHIPPED, DELIVERED, COMPLETED, CANCELLED = OrderStatus
PATHS = {
    PENDING: (),
    PAID: (PAID,),
    SHIPPED: (PAID, SHIPPED),
    DELIVERED: (PAID, SHIPPED, DELIVERED),
    COMPLETED: (COMPLETED,),
    CANCELLED: (CANCELLED,),
}
ALLOWED = {
    (PENDING, PAID),
    (PENDING, CANCELLED),
    (PAID, SHIPPED),
    (PAID, CANCELLED),
    (SHIPPED, DELIVERED),
    (PENDING, COMPLETED),
    (PAID, COMPLETED),
    (SHIPPED, COMPLETED),
    (DELIVERED, COMPLETED),
}


@pytest.fixture(autouse=True)
async def shop(engine: AsyncEngine) -> None:
    """Create users ada and bob with addresses, 1000 teas (1) and 5 pots (2)."""
    await reset_shop(engine)
    async with engine.begin() as connection:
        for statement in (
            "INSERT INTO users (username, email) VALUES ('bob', 'bob@example.com')",
            "INSERT INTO addresses (user_id, street, city, zip_code, country, is_primary)"
            " VALUES (2, 'Quay 2', 'Bergen', '5003', 'NO', true),"
            " (1, 'Quay 3', 'Bergen', '5003', 'NO', false)",
            "INSERT INTO products (name, price, stock_quantity) VALUES ('pot', 9.00, 5)",
        ):
            await connection.execute(text(statement))


async def ordered(
    sessions: Sessions, *items: tuple[int, int], status: OrderStatus = PENDING
) -> int:
    """Place an order of (product, quantity), by default of five teas, and bring it to `status`."""
    wanted = tuple(NewItem(*item) for item in items or [(1, 5)])
    async with sessions.begin() as session:
        (placed,) = await place_orders(session, [NewOrder(1, 1, wanted)])
        assert isinstance(placed, PlacedOrder)
        for step in PATHS[status]:
            await service.change(session, placed.order_id, changes={"status": step})
    return placed.order_id


async def change(sessions: Sessions, order_id: int, changes: OrderChanges) -> Order:
    async with sessions.begin() as session:
        return await service.change(session, order_id, changes=changes)


async def delete(sessions: Sessions, order_id: int) -> None:
    async with sessions.begin() as session:
        await service.delete(session, order_id)


async def items(sessions: Sessions, order_id: int) -> list[tuple[int, int, Decimal]]:
    async with sessions() as session:
        found = (await queries.list_items(session, [order_id]))[order_id]
    return [(item.product_id, item.quantity, item.price_at_order) for item in found]


async def reported(engine: AsyncEngine, sessions: Sessions, order_id: int) -> datetime:
    """Have the report of the order's day built, and return when the order was created."""
    async with sessions() as session:
        order = await queries.get_order(session, order_id)
    await build_report(
        engine, business_day(order.created_at.astimezone(UTC).date(), timezone="UTC")
    )
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM report_runs"))
    return order.created_at


@pytest.mark.parametrize("before", PATHS)
@pytest.mark.parametrize("after", PATHS)
async def test_an_order_changes_status_only_by_allowed_transitions(
    engine: AsyncEngine, sessions: Sessions, before: OrderStatus, after: OrderStatus
) -> None:
    order_id = await ordered(sessions, status=before)
    if before is after or (before, after) in ALLOWED:
        order = await change(sessions, order_id, {"status": after})
        assert order.status is after
    else:
        with pytest.raises(StatusConflict, match=f"a {before} order cannot become {after}; it "):
            await change(sessions, order_id, {"status": after})
    cancelled = before is CANCELLED or (after is CANCELLED and (before, after) in ALLOWED)
    assert await get_stock(engine) == (1000 if cancelled else 995)


async def test_a_change_to_the_same_values_changes_nothing(sessions: Sessions) -> None:
    order_id = await ordered(sessions, (1, 2), (1, 3))
    async with sessions() as session:
        before = await queries.get_order(session, order_id)
    same: OrderChanges = {
        "status": PENDING,
        "delivery_address_id": 1,
        "items": (NewItem(1, 5),),
    }

    assert await change(sessions, order_id, {}) == before
    assert await change(sessions, order_id, same) == before
    assert len(await items(sessions, order_id)) == 2


async def test_concurrent_cancellations_return_the_stock_once(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    order_id = await ordered(sessions, (1, 5), (2, 5))
    await asyncio.gather(
        *(change(sessions, order_id, {"status": CANCELLED}) for _ in range(8)),
    )

    assert (await get_stock(engine, 1), await get_stock(engine, 2)) == (1000, 5)


async def test_concurrent_cancellation_and_deletion_return_the_stock_once(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    order_id = await ordered(sessions)
    outcomes = await asyncio.gather(
        *(change(sessions, order_id, {"status": CANCELLED}) for _ in range(3)),
        *(delete(sessions, order_id) for _ in range(3)),
        return_exceptions=True,
    )

    assert {type(one) for one in outcomes if isinstance(one, BaseException)} <= {OrderNotFound}
    assert sum(one is None for one in outcomes) == 1
    assert await get_stock(engine) == 1000


async def test_new_items_have_current_prices_and_old_ones_return_to_stock(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    order_id = await ordered(sessions, (1, 5))
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE products SET price = 4.00 WHERE id = 1"))
    order = await change(sessions, order_id, {"items": (NewItem(2, 5), NewItem(1, 2))})

    assert order.total_price == Decimal("53.00")
    assert await items(sessions, order_id) == [
        (2, 5, Decimal("9.00")),
        (1, 2, Decimal("4.00")),
    ]
    assert (await get_stock(engine, 1), await get_stock(engine, 2)) == (998, 0)


async def test_the_old_items_of_the_order_count_as_available_stock(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    order_id = await ordered(sessions, (2, 4))
    await change(sessions, order_id, {"items": (NewItem(2, 5),)})
    with pytest.raises(OutOfStock, match="6 of product 2 requested, 5 in stock") as refusal:
        await change(sessions, order_id, {"items": (NewItem(1, 1), NewItem(2, 6))})

    assert refusal.value.field == "items/1/quantity"
    assert await items(sessions, order_id) == [(2, 5, Decimal("9.00"))]
    assert await get_stock(engine, 2) == 0


async def test_items_replaced_by_a_cancellation_take_no_stock(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    order_id = await ordered(sessions, (1, 5))
    await change(sessions, order_id, {"items": (NewItem(2, 9),), "status": CANCELLED})

    assert await items(sessions, order_id) == [(2, 9, Decimal("9.00"))]
    assert (await get_stock(engine, 1), await get_stock(engine, 2)) == (1000, 5)


@pytest.mark.parametrize("status", [PAID, SHIPPED, DELIVERED, COMPLETED, CANCELLED])
async def test_only_a_pending_order_can_change_items(
    engine: AsyncEngine, sessions: Sessions, status: OrderStatus
) -> None:
    order_id = await ordered(sessions, status=status)
    before = await get_stock(engine)
    with pytest.raises(
        StatusConflict, match=f"the items of a {status} order cannot be changed"
    ) as refusal:
        await change(sessions, order_id, {"items": (NewItem(1, 1),)})
    assert refusal.value.field == "items"
    assert await get_stock(engine) == before


@pytest.mark.parametrize("status", PATHS)
async def test_only_an_unshipped_order_can_change_its_address(
    sessions: Sessions, status: OrderStatus
) -> None:
    order_id = await ordered(sessions, status=status)
    if status in (PENDING, PAID):
        order = await change(sessions, order_id, {"delivery_address_id": 3})
        assert order.delivery_address_id == 3
    else:
        with pytest.raises(StatusConflict) as refusal:
            await change(sessions, order_id, {"delivery_address_id": 3})
        assert refusal.value.field == "delivery_address_id"


@pytest.mark.parametrize(
    ("changes", "refusal", "field"),
    [
        ({"delivery_address_id": 99}, UnknownReference, "delivery_address_id"),
        ({"delivery_address_id": 2}, AddressOfAnotherUser, "delivery_address_id"),
        ({"items": (NewItem(1, 1), NewItem(99, 1))}, UnknownReference, "items/1/product_id"),
        ({"items": (NewItem(1, MAX_INTEGER),) * 2}, TotalTooLarge, "items"),
    ],
)
async def test_a_rejected_change_changes_nothing(
    engine: AsyncEngine,
    sessions: Sessions,
    changes: OrderChanges,
    refusal: type[DaybookError],
    field: str,
) -> None:
    order_id = await ordered(sessions)
    with pytest.raises(refusal) as refused:
        await change(sessions, order_id, {**changes, "status": PAID})

    assert refused.value.field == field
    async with sessions() as session:
        order = await queries.get_order(session, order_id)
    assert (order.status, order.delivery_address_id) == (PENDING, 1)
    assert await get_stock(engine) == 995


async def test_stock_above_the_maximum_is_not_returned(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    order_id = await ordered(sessions)
    await set_stock(engine, MAX_INTEGER - 4)
    with pytest.raises(StockLimitExceeded):
        await change(sessions, order_id, {"status": CANCELLED})
    await set_stock(engine, MAX_INTEGER - 5)
    await change(sessions, order_id, {"status": CANCELLED})

    assert await get_stock(engine) == MAX_INTEGER


@pytest.mark.parametrize("status", PATHS)
async def test_a_deleted_order_returns_its_stock_unless_shipped_or_completed(
    engine: AsyncEngine, sessions: Sessions, status: OrderStatus
) -> None:
    order_id = await ordered(sessions, status=status)
    await delete(sessions, order_id)

    assert await get_stock(engine) == (995 if status in (SHIPPED, DELIVERED, COMPLETED) else 1000)
    with pytest.raises(OrderNotFound):
        await delete(sessions, order_id)


async def test_a_reported_order_is_not_deleted_but_may_be_cancelled(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    order_id = await ordered(sessions)
    created_at = await reported(engine, sessions, order_id)
    with pytest.raises(OrderReported, match="cancel it instead") as refusal:
        await delete(sessions, order_id)
    await change(sessions, order_id, {"status": CANCELLED})

    assert f"counted by the report of {created_at.astimezone(UTC).date()}" in str(refusal.value)
    assert await get_stock(engine) == 1000
    assert await list_all_runs(sessions) == []


async def test_changed_items_of_a_reported_order_lead_to_a_new_revision(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    order_id = await ordered(sessions)
    day = (await reported(engine, sessions, order_id)).astimezone(UTC).date()
    await change(sessions, order_id, {"items": (NewItem(1, 7),)})

    (run,) = await list_all_runs(sessions)
    assert (run.report_date, run.state, run.trigger) == (
        day,
        RunState.PENDING,
        RunTrigger.RECONCILE,
    )
    assert run.reason == f"the items of order {order_id} were changed"
    built = await build_report(engine, business_day(day, timezone="UTC"))
    assert (built.revision, built.changed) == (2, 1)
    assert await get_quantity_by_order(engine, day) == {order_id: 7}


async def test_changed_items_of_an_unreported_order_request_no_rebuild(sessions: Sessions) -> None:
    order_id = await ordered(sessions)
    await change(sessions, order_id, {"items": (NewItem(1, 7),)})

    assert await list_all_runs(sessions) == []


async def test_a_change_waits_for_a_running_build_and_requests_another(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    order_id = await ordered(sessions)
    async with sessions() as session:
        day = (await queries.get_order(session, order_id)).created_at.astimezone(UTC).date()
    lock = text("SELECT pg_advisory_xact_lock(7201, :day - date '2000-01-01')")
    async with engine.begin() as builder:
        await builder.execute(lock, {"day": day})
        await builder.execute(
            text("INSERT INTO reports (report_at, order_id, count_product) VALUES (:day, :id, 5)"),
            {"day": day, "id": order_id},
        )
        changing = asyncio.create_task(change(sessions, order_id, {"items": (NewItem(1, 7),)}))
        await wait_for_blocked_transaction(engine)
        assert not changing.done()

    await changing
    assert [run.report_date for run in await list_all_runs(sessions)] == [day]


async def test_an_unknown_order_is_not_found(sessions: Sessions) -> None:
    with pytest.raises(OrderNotFound):
        await change(sessions, 99, {"status": PAID})
