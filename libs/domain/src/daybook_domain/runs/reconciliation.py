"""Reconciliation: periodic rebuilds of recent days, so that their reports include late orders."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import and_
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.postgres_errors import is_lock_conflict, is_transaction_lost
from daybook_domain.reports.business_day import business_day
from daybook_domain.reports.models import ReportDay
from daybook_domain.row_errors import report_row_error
from daybook_domain.runs.models import RunTrigger
from daybook_domain.runs.requests import request


@dataclass(frozen=True)
class Reconciliation:
    """The dates whose rebuild was requested, and those whose waiting run was locked."""

    requested: Sequence[date]
    postponed: Sequence[date]


async def reconcile(
    session: AsyncSession,
    *,
    first: date,
    timezone: str,
    now: datetime,
    settle: timedelta,
    interval: timedelta,
) -> Reconciliation:
    """Request the rebuild of the sealed days since `first` that are due for one.

    A day is due `settle` after it was sealed and then every `interval`. The rebuild adds orders
    whose transaction committed after the previous build took its snapshot. A day that fails is
    postponed and affects no other; so is one whose waiting run is locked. It is still due at the
    next call.
    """
    due = (
        select(ReportDay)
        .where(
            ReportDay.report_date >= first,
            col(ReportDay.sealed_at).is_not(None),
            or_(
                and_(
                    col(ReportDay.reconciled_at).is_(None),
                    col(ReportDay.sealed_at) <= now - settle,
                ),
                col(ReportDay.reconciled_at) <= now - interval,
            ),
        )
        .order_by(col(ReportDay.report_date))
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    requested, postponed = [], []
    for found in (await session.exec(due)).all():
        date = found.report_date
        try:
            async with session.begin_nested():
                found.reconciled_at = now
                day = business_day(date, timezone=timezone)
                await request(session, day=day, trigger=RunTrigger.RECONCILE, now=now)
            requested.append(date)
        except Exception as error:
            if is_transaction_lost(error):
                raise
            postponed.append(date)
            if not is_lock_conflict(error):
                report_row_error(f"report day {date}", error)
    return Reconciliation(requested=requested, postponed=postponed)
