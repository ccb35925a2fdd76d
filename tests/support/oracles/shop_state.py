"""The state of the shop that tests compare: orders, quantities sold, stock and dead letters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


@dataclass(frozen=True)
class ShopState:
    """Totals of the shop's tables."""

    orders: int
    """The number of orders."""
    sold: dict[int, int]
    """The quantity in orders that are not cancelled, by product id."""
    stock: dict[int, int]
    """The stock, by product id."""
    dead_letters: dict[str, list[tuple[str, str]]]
    """`(queue, reason_code)` of the dead letters by state, in the order of their ids."""


async def get_shop_state(engine: AsyncEngine) -> ShopState:
    """Return the committed state."""
    async with engine.connect() as connection:
        return await get_visible_shop_state(connection)


async def get_visible_shop_state(connection: AsyncConnection) -> ShopState:
    """Return the state that is visible to `connection`."""

    async def rows(statement: str) -> Sequence[Any]:
        return (await connection.execute(text(statement))).all()

    dead_letters: dict[str, list[tuple[str, str]]] = {}
    for state, queue, code in await rows(
        "SELECT state, queue, reason_code FROM dead_letters ORDER BY id"
    ):
        dead_letters.setdefault(state, []).append((queue, code))
    sold = await rows(
        "SELECT product_id, sum(quantity) FROM order_items JOIN orders ON orders.id = order_id"
        " WHERE status <> 'cancelled' GROUP BY product_id ORDER BY product_id"
    )
    return ShopState(
        orders=(await rows("SELECT count(*) FROM orders"))[0][0],
        sold={product: int(quantity) for product, quantity in sold},
        stock=dict(await rows("SELECT id, stock_quantity FROM products ORDER BY id")),
        dead_letters=dead_letters,
    )
