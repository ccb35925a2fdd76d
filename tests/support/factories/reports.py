"""Factories of reports, and reads of their stored rows."""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col, select

from daybook_domain.reports.build import BuildResult, build_day
from daybook_domain.reports.business_day import BusinessDay
from daybook_domain.reports.models import ReportDay


@dataclass(frozen=True)
class ReportLine:
    """A stored report row."""

    id: int
    order_id: int
    count_product: int
    created_at: datetime
    version: str
    """The row version (`xmin` and `ctid`), which changes with every write of the row."""


async def create_running_run(engine: AsyncEngine, day: date, *, fence: int = 1) -> UUID:
    """Insert a run of `day` that a worker has claimed with `fence`, and return its id."""
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


async def build_report(engine: AsyncEngine, day: BusinessDay) -> BuildResult:
    """Build the report of `day` in a new run, and commit."""
    run_id = await create_running_run(engine, day.date)
    async with engine.begin() as connection:
        return await build_day(connection, day=day, run_id=run_id, fence=1)


async def list_report_lines(engine: AsyncEngine, day: date) -> list[ReportLine]:
    """Return the committed rows of the report of `day`, by order."""
    async with engine.connect() as connection:
        return await list_visible_report_lines(connection, day)


async def list_visible_report_lines(connection: AsyncConnection, day: date) -> list[ReportLine]:
    """Return the rows of the report of `day` that are visible to `connection`, by order."""
    found = await connection.execute(
        text(
            "SELECT id, order_id, count_product, created_at, xmin::text || ctid::text AS version"
            " FROM reports WHERE report_at = :day ORDER BY order_id"
        ),
        {"day": day},
    )
    return [ReportLine(*row) for row in found]


async def get_quantity_by_order(engine: AsyncEngine, day: date) -> dict[int, int]:
    """Return the number of products in each order of the report of `day`, by order id."""
    return {line.order_id: line.count_product for line in await list_report_lines(engine, day)}


async def find_report_day(engine: AsyncEngine, day: date) -> ReportDay | None:
    """Return the metadata of the report of `day`, or None."""
    async with engine.connect() as connection:
        row = (
            await connection.execute(select(ReportDay).where(col(ReportDay.report_date) == day))
        ).one_or_none()
    return None if row is None else ReportDay(**row._mapping)
