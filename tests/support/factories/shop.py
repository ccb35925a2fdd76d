"""Factories of customers, products and orders, written directly to the database."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tests.support.postgres import truncate_tables


async def reset_shop(engine: AsyncEngine) -> None:
    """Truncate all tables, then insert a user, an address and a product, each with id 1."""
    await truncate_tables(engine)
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO users (username, email) VALUES ('ada', 'ada@example.com')")
        )
        await connection.execute(
            text(
                "INSERT INTO addresses (user_id, street, city, zip_code, country, is_primary)"
                " VALUES (1, 'Quay 1', 'Bergen', '5003', 'NO', true)"
            )
        )
        await connection.execute(
            text("INSERT INTO products (name, price, stock_quantity) VALUES ('tea', 3.50, 1000)")
        )


async def create_order(
    connection: AsyncConnection,
    *,
    created_at: datetime,
    quantities: Sequence[int] = (1,),
    order_id: int | None = None,
) -> int:
    """Insert an order with one item per quantity, and return its id."""
    given = "OVERRIDING SYSTEM VALUE" if order_id is not None else ""
    column, value = ("id, ", ":id, ") if order_id is not None else ("", "")
    inserted = await connection.execute(
        text(
            f"INSERT INTO orders"
            f" ({column}user_id, delivery_address_id, total_price, status, created_at) {given}"
            f" VALUES ({value}1, 1, 3.50, 'paid', :created_at) RETURNING id"
        ),
        {"created_at": created_at} | ({"id": order_id} if order_id is not None else {}),
    )
    new_id: int = inserted.scalar_one()
    for quantity in quantities:
        await create_order_item(connection, order_id=new_id, quantity=quantity)
    return new_id


async def create_order_item(connection: AsyncConnection, *, order_id: int, quantity: int) -> None:
    """Insert an item of product 1 into an order."""
    await connection.execute(
        text(
            "INSERT INTO order_items (order_id, product_id, quantity, price_at_order)"
            " VALUES (:order_id, 1, :quantity, 3.50)"
        ),
        {"order_id": order_id, "quantity": quantity},
    )


async def delete_order(connection: AsyncConnection, order_id: int) -> None:
    """Delete an order, even if a report contains it, and mark that report for a rebuild."""
    await connection.execute(text("SET LOCAL daybook.delete_reported_orders = 'rebuild'"))
    await connection.execute(text("DELETE FROM orders WHERE id = :id"), {"id": order_id})


async def set_stock(engine: AsyncEngine, quantity: int) -> None:
    """Set the stock of product 1."""
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE products SET stock_quantity = :quantity WHERE id = 1"),
            {"quantity": quantity},
        )


async def get_stock(engine: AsyncEngine, product_id: int = 1) -> int:
    """Return the stock of a product."""
    async with engine.connect() as connection:
        stock: int = (
            await connection.execute(
                text("SELECT stock_quantity FROM products WHERE id = :id"), {"id": product_id}
            )
        ).scalar_one()
    return stock
