"""The variants of building a day that the benchmarks compare."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Table as SqlTable
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Mapped, registry, relationship, selectinload

from daybook_domain.reports import build, build_sql
from daybook_domain.reports.business_day import BusinessDay
from daybook_domain.tables import metadata

mapping = registry(metadata=metadata)


def _table(name: str) -> SqlTable:
    return metadata.tables[name]


@mapping.mapped
class Item:
    """An order item, mapped as in an ORM tutorial."""

    __table__ = _table("order_items")
    quantity: Mapped[int]


@mapping.mapped
class Order:
    """An order with its items, mapped as in an ORM tutorial."""

    __table__ = _table("orders")
    id: Mapped[int]
    items: Mapped[list[Item]] = relationship(Item)


@mapping.mapped
class Row:
    """A report row as an object."""

    __table__ = _table("reports")

    def __init__(self, *, report_at: object, order_id: int, count_product: int) -> None:
        self.report_at = report_at
        self.order_id = order_id
        self.count_product = count_product


BOUNDS = text(
    """
    SELECT min(id) AS first, max(id) AS last FROM (
        SELECT id FROM orders WHERE created_at >= :starts_at AND created_at < :ends_at OFFSET 0
    ) AS day
    """
)
READ = text(f"SELECT count(*), sum(count_product) FROM ({build_sql.DAY_ROWS}) AS day")
INSERT = text(
    """
    INSERT INTO reports (report_at, order_id, count_product)
    SELECT CAST(:on AS date), order_id, count_product FROM precomputed
    """
)


async def naive(engine: AsyncEngine, day: BusinessDay) -> None:
    """Load all orders as objects; insert, flush and refresh a row for each."""
    async with AsyncSession(engine) as session, session.begin():
        for order in await _load(session, day):
            row = _row(day, order)
            session.add(row)
            await session.flush()
            await session.refresh(row)


async def add_all(engine: AsyncEngine, day: BusinessDay) -> None:
    """Load all orders as objects; insert all rows with one flush."""
    async with AsyncSession(engine) as session, session.begin():
        session.add_all([_row(day, order) for order in await _load(session, day)])


async def daybook(engine: AsyncEngine, day: BusinessDay, run_id: UUID) -> build.BuildResult:
    """Build the day as a worker does."""
    async with engine.begin() as connection:
        return await build.build_day(connection, day=day, run_id=run_id, fence=1)


async def read(engine: AsyncEngine, day: BusinessDay) -> None:
    """Read the aggregate of the day with the best known plan, and discard it."""
    async with engine.begin() as connection:
        await _read(connection, day)


async def limit(engine: AsyncEngine, day: BusinessDay) -> None:
    """Read the aggregate and insert precomputed rows: the lower limit of a build."""
    async with engine.begin() as connection:
        await _read(connection, day)
        await connection.execute(INSERT, {"on": day.date})


async def precompute(engine: AsyncEngine, day: BusinessDay) -> None:
    """Store the rows of `day`, in order, for `limit` to insert."""
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS precomputed"))
        await connection.execute(
            text("CREATE TABLE precomputed (order_id bigint, count_product bigint)")
        )
        values = {"starts_at": day.starts_at, "ends_at": day.ends_at}
        near = (await connection.execute(BOUNDS, values)).one()
        await connection.execute(
            text(
                f"INSERT INTO precomputed SELECT * FROM ({build_sql.DAY_ROWS}) AS day_rows"
                " ORDER BY order_id"
            ),
            {**values, "first": near.first, "last": near.last},
        )


async def _read(connection: AsyncConnection, day: BusinessDay) -> None:
    await build.lock_date(connection, day=day, idle_timeout=timedelta(minutes=1))
    values = {"starts_at": day.starts_at, "ends_at": day.ends_at}
    near = (await connection.execute(BOUNDS, values)).one()
    await connection.execute(READ, {**values, "first": near.first, "last": near.last})


async def _load(session: AsyncSession, day: BusinessDay) -> list[Order]:
    created_at = _table("orders").c.created_at
    statement = (
        select(Order)
        .where(created_at >= day.starts_at, created_at < day.ends_at)
        .options(selectinload(Order.items))
    )
    return list(await session.scalars(statement))


def _row(day: BusinessDay, order: Order) -> Row:
    products = sum(item.quantity for item in order.items)
    return Row(report_at=day.date, order_id=order.id, count_product=products)
