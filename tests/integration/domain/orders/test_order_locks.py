"""Locks of placing and deleting orders: what they exclude, and their order."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.orders import queries
from daybook_domain.orders.order_placement import PlacedOrder, place_orders
from daybook_domain.orders.order_validation import NewItem, NewOrder
from daybook_domain.postgres_errors import is_lock_conflict
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.shop import reset_shop
from tests.support.postgres import wait_for_blocked_transaction


@pytest.fixture(autouse=True)
async def shop(engine: AsyncEngine) -> None:
    """Create a user, an address and a product, each with id 1."""
    await reset_shop(engine)


async def place(sessions: Sessions, *external_ids: str | None) -> list[bool]:
    """Place an order per external id; return which of them were placed."""
    async with sessions.begin() as session:
        orders = [NewOrder(1, 1, (NewItem(1, 1),), each) for each in external_ids]
        return [isinstance(each, PlacedOrder) for each in await place_orders(session, orders)]


async def is_locked(engine: AsyncEngine, query: str) -> bool:
    """Return whether `query`, with NOWAIT, conflicts with a lock."""
    async with engine.connect() as connection:
        try:
            await connection.execute(text(f"{query} NOWAIT"))
        except DBAPIError as error:
            if not is_lock_conflict(error):
                raise
            return True
        return False


@pytest.mark.parametrize("table", ["users", "addresses"])
async def test_what_an_order_refers_to_is_held_before_its_products_are_locked(
    engine: AsyncEngine, sessions: Sessions, table: str
) -> None:
    async with asyncio.TaskGroup() as tasks, engine.begin() as connection:
        await connection.execute(text("SELECT FROM products WHERE id = 1 FOR UPDATE"))
        placing = tasks.create_task(place(sessions, None))
        await wait_for_blocked_transaction(engine)

        assert await is_locked(engine, f"SELECT FROM {table} WHERE id = 1 FOR UPDATE")
        assert not await is_locked(engine, f"SELECT FROM {table} WHERE id = 1 FOR NO KEY UPDATE")

    assert placing.result() == [True]


async def test_external_ids_are_inserted_in_order(engine: AsyncEngine, sessions: Sessions) -> None:
    insert = (
        "INSERT INTO orders (external_id, user_id, delivery_address_id, total_price, status)"
        " VALUES ('{}', 1, 1, 0, 'pending')"
    )
    async with asyncio.TaskGroup() as tasks, engine.connect() as connection:
        await connection.execute(text(insert.format("a")))
        placing = tasks.create_task(place(sessions, "b", "a"))
        await wait_for_blocked_transaction(engine)
        # A batch that had inserted b first would deadlock with this transaction.
        await connection.execute(text("SET LOCAL lock_timeout = '1ms'"))
        await connection.execute(text(insert.format("b")))
        await connection.rollback()

    assert placing.result() == [True, True]


async def test_an_order_to_delete_is_locked_against_rows_that_refer_to_it(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await place(sessions, None)
    refer = "SELECT FROM orders WHERE id = 1 FOR KEY SHARE"

    async with sessions.begin() as session:
        await queries.get_order_for_update(session, 1)
        assert not await is_locked(engine, refer)
        await queries.get_order_for_delete(session, 1)
        assert await is_locked(engine, refer)
