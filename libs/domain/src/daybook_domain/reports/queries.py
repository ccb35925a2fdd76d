"""Queries of report days."""

from collections.abc import Sequence
from datetime import date

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports.errors import DayNotFound
from daybook_domain.reports.models import ReportDay


async def find_day(session: AsyncSession, day: date) -> ReportDay | None:
    """Return the manifest of the report of `day`, or None if it is absent."""
    return await session.get(ReportDay, day)


async def get_latest_sealed_date(session: AsyncSession) -> date:
    """Return the latest date with a sealed report, or raise `DayNotFound`."""
    statement = select(func.max(ReportDay.report_date)).where(col(ReportDay.sealed_at).is_not(None))
    found: date | None = (await session.exec(statement)).one()
    if found is None:
        raise DayNotFound("No day has a sealed report; POST /report/runs builds one.")
    return found


async def list_days(session: AsyncSession, *, first: date, last: date) -> Sequence[ReportDay]:
    """Return the manifests of the built days from `first` to `last`, both included, by date."""
    statement = (
        select(ReportDay)
        .where(ReportDay.report_date >= first, ReportDay.report_date <= last)
        .order_by(col(ReportDay.report_date))
    )
    return (await session.exec(statement)).all()
