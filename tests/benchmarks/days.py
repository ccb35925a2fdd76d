"""Which days are benchmarked? Orders of three items each, written by Postgres itself."""

from datetime import date, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from daybook_domain.reports.business_day import BusinessDay, business_day

NEWEST = date(2026, 6, 30)

PEOPLE = """
    INSERT INTO users (username, email)
    SELECT 'user' || n, n || '@example.com' FROM generate_series(1, 1000) AS n;
    INSERT INTO addresses (user_id, street, city, zip_code, country, is_primary)
    SELECT n, 'Quay ' || n, 'Bergen', '5003', 'NO', true FROM generate_series(1, 1000) AS n;
    INSERT INTO products (name, price, stock_quantity)
    SELECT 'tea ' || n, 3.50, 1000 FROM generate_series(1, 1000) AS n
"""

ORDERS = text(
    """
    INSERT INTO orders (user_id, delivery_address_id, total_price, status, created_at)
    SELECT 1 + n % 1000, 1 + n % 1000, 31.50, 'paid',
        CAST(:starts_at AS timestamptz) + n * (interval '1 day' / CAST(:orders AS int))
    FROM generate_series(0, CAST(:orders AS int) - 1) AS n
    """
)

ITEMS = text(
    """
    INSERT INTO order_items (order_id, product_id, quantity, price_at_order)
    SELECT o.id, 1 + (o.id * 7 + k) % 1000, 1 + (o.id + k) % 5, 3.50
    FROM orders AS o CROSS JOIN generate_series(1, 3) AS k
    WHERE o.created_at >= :starts_at AND o.created_at < :ends_at
    ORDER BY o.id
    """
)

# Late orders take their ids from behind those of their day.
GAP = text("SELECT setval(pg_get_serial_sequence('orders', 'id'), max(id) + 1000) FROM orders")

REPORT = text(
    """
    INSERT INTO reports (report_at, order_id, count_product)
    SELECT CAST(:day AS date), id, 9 FROM orders
    WHERE created_at >= :starts_at AND created_at < :ends_at ORDER BY id
    """
)


async def prepare(engine: AsyncEngine) -> None:
    """Add the people and products; statistics and visibility change only when we say so."""
    async with engine.begin() as connection:
        for name in ("orders", "order_items", "reports"):
            await connection.execute(text(f"ALTER TABLE {name} SET (autovacuum_enabled = off)"))
        for statement in PEOPLE.split(";"):
            await connection.execute(text(statement))


async def add_day(engine: AsyncEngine, on: date, *, orders: int, reported: bool) -> BusinessDay:
    """Add a day of `orders` orders, with its report rows if `reported`."""
    day = business_day(on, timezone="UTC")
    bounds = {"starts_at": day.starts_at, "ends_at": day.ends_at}
    async with engine.begin() as connection:
        # Foreign keys are none of the build's work, and double the time that loading takes.
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(ORDERS, {"starts_at": day.starts_at, "orders": orders})
        await connection.execute(ITEMS, bounds)
        await connection.execute(GAP)
        if reported:
            await connection.execute(REPORT, {**bounds, "day": on})
    return day


async def add_history(engine: AsyncEngine, *, days: int, orders: int) -> None:
    """Add `days` reported days that end a week before `NEWEST`."""
    last = NEWEST - timedelta(days=7)
    for age in reversed(range(days)):
        await add_day(engine, last - timedelta(days=age), orders=orders, reported=True)


async def add_late_order(
    connection: AsyncConnection, day: BusinessDay, *, order_id: int | None = None
) -> None:
    """Add an order of three items at noon of `day`, with the id behind its last, or `order_id`."""
    added = await connection.execute(
        text(
            "INSERT INTO orders (id, user_id, delivery_address_id, total_price, status, created_at)"
            " OVERRIDING SYSTEM VALUE SELECT coalesce(CAST(:id AS bigint), max(id) + 1),"
            " 1, 1, 31.50, 'paid', CAST(:noon AS timestamptz) FROM (SELECT id FROM orders"
            " WHERE created_at >= :starts_at AND created_at < :ends_at OFFSET 0) AS day"
            " RETURNING id"
        ),
        {
            "id": order_id,
            "noon": day.starts_at + timedelta(hours=12),
            "starts_at": day.starts_at,
            "ends_at": day.ends_at,
        },
    )
    await connection.execute(
        text(
            "INSERT INTO order_items (order_id, product_id, quantity, price_at_order)"
            " SELECT :id, 1, k, 3.50 FROM generate_series(1, 3) AS k"
        ),
        {"id": added.scalar_one()},
    )


async def forget_report(engine: AsyncEngine, on: date) -> None:
    """Make `on` absent, leave no dead rows behind, and let the next run begin on a quiet disk."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        for table in ("reports", "report_days"):
            column = "report_at" if table == "reports" else "report_date"
            await connection.execute(text(f"DELETE FROM {table} WHERE {column} = :on"), {"on": on})
        await connection.execute(text("VACUUM reports"))
        await connection.execute(text("CHECKPOINT"))


async def vacuum(engine: AsyncEngine) -> None:
    """Take statistics and mark what all can see, as the server does once a table rests."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE"))
