"""How does a test get orders, and a report of them?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col, select

from daybook_domain.reports.build import BuildResult, build_day
from daybook_domain.reports.business_day import BusinessDay
from daybook_domain.reports.models import ReportDay
from tests.support.databases import empty


@dataclass(frozen=True)
class Line:
    """One row of a report, as stored; `version` changes with every write of it."""

    id: int
    order_id: int
    count_product: int
    created_at: datetime
    version: str


async def open_shop(engine: AsyncEngine) -> None:
    """Empty all tables, then add a user, an address and a product, each with id 1."""
    await empty(engine)
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


async def add_order(
    connection: AsyncConnection,
    *,
    created_at: datetime,
    quantities: Sequence[int] = (1,),
    order_id: int | None = None,
) -> int:
    """Add an order with an item for each quantity, and return its id."""
    given = "OVERRIDING SYSTEM VALUE" if order_id is not None else ""
    column, value = ("id, ", ":id, ") if order_id is not None else ("", "")
    added = await connection.execute(
        text(
            f"INSERT INTO orders"
            f" ({column}user_id, delivery_address_id, total_price, status, created_at) {given}"
            f" VALUES ({value}1, 1, 3.50, 'paid', :created_at) RETURNING id"
        ),
        {"created_at": created_at} | ({"id": order_id} if order_id is not None else {}),
    )
    new_id: int = added.scalar_one()
    for quantity in quantities:
        await add_item(connection, order_id=new_id, quantity=quantity)
    return new_id


async def add_item(connection: AsyncConnection, *, order_id: int, quantity: int) -> None:
    """Add one item to an order."""
    await connection.execute(
        text(
            "INSERT INTO order_items (order_id, product_id, quantity, price_at_order)"
            " VALUES (:order_id, 1, :quantity, 3.50)"
        ),
        {"order_id": order_id, "quantity": quantity},
    )


async def delete_order(connection: AsyncConnection, order_id: int) -> None:
    """Delete an order although a report may count it; the report is to be built again."""
    await connection.execute(text("SET LOCAL daybook.delete_reported_orders = 'rebuild'"))
    await connection.execute(text("DELETE FROM orders WHERE id = :id"), {"id": order_id})


async def start_run(engine: AsyncEngine, day: date, *, fence: int = 1) -> UUID:
    """Add a run of `day` that a worker has claimed with `fence`, and return its id."""
    run_id = uuid4()
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO report_runs (id, report_date, trigger, state, priority, attempt,"
                " max_attempts, available_at, lease_until, fence) VALUES (:id, :day, 'manual',"
                " 'running', 0, 1, 5, now(), now() + interval '1 hour', :fence)"
            ),
            {"id": run_id, "day": day, "fence": fence},
        )
    return run_id


async def build(engine: AsyncEngine, day: BusinessDay) -> BuildResult:
    """Build the report of `day` by a run of its own, and commit."""
    run_id = await start_run(engine, day.date)
    async with engine.begin() as connection:
        return await build_day(connection, day=day, run_id=run_id, fence=1)


async def lines(engine: AsyncEngine, day: date) -> list[Line]:
    """Return the rows of the report of `day` as others see them, by order."""
    async with engine.connect() as connection:
        return await lines_seen(connection, day)


async def lines_seen(connection: AsyncConnection, day: date) -> list[Line]:
    """Return the rows of the report of `day` as `connection` sees them, by order."""
    found = await connection.execute(
        text(
            "SELECT id, order_id, count_product, created_at, xmin::text || ctid::text AS version"
            " FROM reports WHERE report_at = :day ORDER BY order_id"
        ),
        {"day": day},
    )
    return [Line(*row) for row in found]


async def sums(engine: AsyncEngine, day: date) -> dict[int, int]:
    """Return the report of `day`: products by order."""
    return {line.order_id: line.count_product for line in await lines(engine, day)}


async def kept_day(engine: AsyncEngine, day: date) -> ReportDay | None:
    """Return what is known about the report of `day`, if anything."""
    async with engine.connect() as connection:
        row = (
            await connection.execute(select(ReportDay).where(col(ReportDay.report_date) == day))
        ).one_or_none()
    return None if row is None else ReportDay(**row._mapping)


async def set_stock(engine: AsyncEngine, pieces: int) -> None:
    """Let so many teas be left."""
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE products SET stock_quantity = :pieces WHERE id = 1"), {"pieces": pieces}
        )


async def stock_left(engine: AsyncEngine, product_id: int = 1) -> int:
    """Return how many pieces of a product are left."""
    async with engine.connect() as connection:
        left: int = (
            await connection.execute(
                text("SELECT stock_quantity FROM products WHERE id = :id"), {"id": product_id}
            )
        ).scalar_one()
    return left
