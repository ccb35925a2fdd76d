"""What do producers send, and what came of it? Messages with valid defaults, and the books."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


def order(
    *, user: int = 1, address: int = 1, product: int = 1, quantity: int = 1, **more: Any
) -> bytes:
    """Return the body of an order of one product."""
    items = [{"product_id": product, "quantity": quantity}]
    return body({"user_id": user, "delivery_address_id": address, "items": items} | more)


def product(*, name: str = "coffee", price: float = 9.9, stock: int = 10, **more: Any) -> bytes:
    """Return the body of a product."""
    return body({"name": name, "price": price, "stock_quantity": stock} | more)


def product_update(product_id: int, **data: Any) -> bytes:
    """Return the body of a change of a product."""
    return body({"product_id": product_id, "product_data": data})


def order_update(order_id: int, **data: Any) -> bytes:
    """Return the body of a change of an order."""
    return body({"order_id": order_id, "order_data": data})


def body(content: object) -> bytes:
    """Return `content` as a producer sends it."""
    return json.dumps(content).encode()


@dataclass(frozen=True)
class Books:
    """What is in the database."""

    orders: int
    sold: dict[int, int]
    """Pieces in orders that are not cancelled, by product."""
    stock: dict[int, int]
    letters: dict[str, list[tuple[str, str]]]
    """`(queue, reason_code)` of the dead letters, by state, in the order of their ids."""


async def books(engine: AsyncEngine) -> Books:
    """Return what is in the database."""
    async with engine.connect() as connection:
        return await books_seen(connection)


async def books_seen(connection: AsyncConnection) -> Books:
    """Return what is in the database as `connection` sees it."""

    async def rows(statement: str) -> Sequence[Any]:
        return (await connection.execute(text(statement))).all()

    letters: dict[str, list[tuple[str, str]]] = {}
    for state, queue, code in await rows(
        "SELECT state, queue, reason_code FROM dead_letters ORDER BY id"
    ):
        letters.setdefault(state, []).append((queue, code))
    sold = await rows(
        "SELECT product_id, sum(quantity) FROM order_items JOIN orders ON orders.id = order_id"
        " WHERE status <> 'cancelled' GROUP BY product_id ORDER BY product_id"
    )
    return Books(
        orders=(await rows("SELECT count(*) FROM orders"))[0][0],
        sold={product: int(pieces) for product, pieces in sold},
        stock=dict(await rows("SELECT id, stock_quantity FROM products ORDER BY id")),
        letters=letters,
    )
