"""Placement of batches: stored rows, stock, duplicates and concurrent batches."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.errors import DaybookError
from daybook_domain.orders.errors import ExternalIdTaken, OutOfStock, UnknownReference
from daybook_domain.orders.order_placement import PlacedOrder, place_orders
from daybook_domain.orders.order_validation import NewItem, NewOrder
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.shop import get_stock, reset_shop, set_stock
from tests.support.postgres import wait_for_blocked_transaction


@pytest.fixture(autouse=True)
async def shop(engine: AsyncEngine) -> None:
    """Create user ada, her address and 1000 teas at 3.50, each with id 1."""
    await reset_shop(engine)


def tea(quantity: int = 1, *, external_id: str | None = None, user_id: int = 1) -> NewOrder:
    return NewOrder(user_id, 1, (NewItem(1, quantity),), external_id)


async def placed(
    sessions: Sessions, orders: Sequence[NewOrder]
) -> list[PlacedOrder | DaybookError]:
    async with sessions.begin() as session:
        return await place_orders(session, orders)


async def rows(engine: AsyncEngine, query: str) -> list[tuple[object, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


async def test_a_placed_order_has_items_and_a_total_and_reduces_stock(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    order = NewOrder(1, 1, (NewItem(1, 2), NewItem(1, 3)), "shop-17")
    outcomes = await placed(sessions, [order])

    assert outcomes == [PlacedOrder(1, Decimal("17.50"), duplicate=False)]
    assert await rows(engine, "SELECT external_id, total_price, status FROM orders") == [
        ("shop-17", Decimal("17.50"), "pending")
    ]
    assert await rows(
        engine, "SELECT order_id, product_id, quantity, price_at_order FROM order_items ORDER BY id"
    ) == [(1, 1, 2, Decimal("3.50")), (1, 1, 3, Decimal("3.50"))]
    assert await get_stock(engine) == 995


async def test_the_results_have_the_order_of_the_batch(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await set_stock(engine, 10)
    outcomes = await placed(
        sessions,
        [
            tea(4, external_id="z"),
            tea(user_id=99),
            tea(7),
            tea(4, external_id="a"),
            tea(4, external_id="z"),
            tea(5, external_id="z"),
            tea(2),
            tea(1),
        ],
    )

    assert [type(outcome) for outcome in outcomes] == [
        PlacedOrder,
        UnknownReference,
        OutOfStock,
        PlacedOrder,
        PlacedOrder,
        ExternalIdTaken,
        PlacedOrder,
        OutOfStock,
    ]
    ids = [one.order_id for one in outcomes if isinstance(one, PlacedOrder)]
    assert ids == [1, 2, 1, 3]
    assert await get_stock(engine) == 0
    assert await rows(engine, "SELECT id, external_id FROM orders ORDER BY id") == [
        (1, "z"),
        (2, "a"),
        (3, None),
    ]


async def test_a_later_delivery_of_the_same_order_changes_nothing(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    split = NewOrder(1, 1, (NewItem(1, 2), NewItem(1, 3)), "shop-17")
    (first,) = await placed(sessions, [split])
    await set_stock(engine, 0)
    (again,) = await placed(sessions, [tea(5, external_id="shop-17")])
    (other,) = await placed(sessions, [tea(6, external_id="shop-17")])

    assert isinstance(first, PlacedOrder)
    assert again == PlacedOrder(first.order_id, first.total_price, duplicate=True)
    assert isinstance(other, ExternalIdTaken)
    assert other.field == "external_id"
    assert await rows(engine, "SELECT count(*) FROM orders") == [(1,)]
    assert await get_stock(engine) == 0


async def test_an_order_placed_by_a_concurrent_transaction_is_found(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """The two batches have no common product, so they conflict only in the external id."""
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO products (name, price, stock_quantity) VALUES ('pot', 9.00, 5)")
        )
    pot = NewOrder(1, 1, (NewItem(2, 1),), "shop-17")
    async with sessions.begin() as session:
        await place_orders(session, [pot])
        second = asyncio.create_task(
            placed(sessions, [tea(3), tea(2, external_id="shop-17"), tea(4)])
        )
        await wait_for_blocked_transaction(engine)

    outcomes = await second
    assert [type(outcome) for outcome in outcomes] == [PlacedOrder, ExternalIdTaken, PlacedOrder]
    assert await get_stock(engine) == 993
    assert await rows(engine, "SELECT count(*), count(external_id) FROM orders") == [(3, 1)]
    assert await rows(engine, "SELECT count(*) FROM order_items") == [(3,)]


async def test_concurrent_deliveries_of_an_order_place_it_once(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    batches = await asyncio.gather(
        *(placed(sessions, [tea(1), tea(2, external_id="shop-17")]) for _ in range(12))
    )

    outcomes = [outcome for _, outcome in batches]
    assert len({outcome.order_id for outcome in outcomes if isinstance(outcome, PlacedOrder)}) == 1
    assert [outcome for outcome in outcomes if not isinstance(outcome, PlacedOrder)] == []
    assert sorted(
        outcome.duplicate for outcome in outcomes if isinstance(outcome, PlacedOrder)
    ) == [
        False,
        *[True] * 11,
    ]
    assert await get_stock(engine) == 1000 - 12 - 2


async def test_batches_with_the_same_external_ids_in_opposite_order_do_not_deadlock(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """Each batch has its own product, so they conflict only in the external ids."""
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO products (name, price, stock_quantity)"
                " SELECT 'pot', 9.00, 1000 FROM generate_series(2, 10)"
            )
        )
    keys = [f"shop-{n}" for n in range(200)]
    batches = await asyncio.gather(
        *(
            placed(
                sessions,
                [
                    NewOrder(1, 1, (NewItem(product, 1),), key)
                    for key in (keys if product % 2 else reversed(keys))
                ],
            )
            for product in range(1, 11)
        )
    )

    outcomes = [one for batch in batches for one in batch]
    assert sum(isinstance(one, PlacedOrder) for one in outcomes) == 200
    assert sum(isinstance(one, ExternalIdTaken) for one in outcomes) == 1800
    assert await rows(engine, "SELECT 10000 - sum(stock_quantity) FROM products") == [(200,)]


async def test_a_rolled_back_transaction_places_nothing(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    async with sessions() as session:
        await place_orders(session, [tea(5)])
        await session.rollback()

    assert await rows(engine, "SELECT count(*) FROM orders") == [(0,)]
    assert await get_stock(engine) == 1000


async def test_an_empty_batch_has_no_results(sessions: Sessions) -> None:
    assert await placed(sessions, []) == []
