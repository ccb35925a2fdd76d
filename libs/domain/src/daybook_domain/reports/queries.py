"""Queries of report days."""

from collections.abc import Sequence
from datetime import date

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports.errors import DayNotFound
from daybook_domain.reports.models import ReportDay


async def get_day(session: AsyncSession, day: date) -> ReportDay:
    """Return the manifest of the report of `day`, or raise `DayNotFound` if it is absent."""
    found = await session.get(ReportDay, day)
    if found is None:
        raise DayNotFound(f"{day} has no report; POST /report/runs builds one.")
    return found


async def list_days(session: AsyncSession, *, first: date, last: date) -> Sequence[ReportDay]:
    """Return the manifests of the built days from `first` to `last`, both included, by date."""
    statement = (
        select(ReportDay)
        .where(ReportDay.report_date >= first, ReportDay.report_date <= last)
        .order_by(col(ReportDay.report_date))
    )
    return (await session.exec(statement)).all()
