"""Reconciliation: periodic rebuilds of recent days, so that their reports include late orders."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Update, and_, update
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
        select(col(ReportDay.report_date))
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
    )
    requested, postponed = [], []
    for day_date in (await session.exec(due)).all():
        try:
            async with session.begin_nested():
                day = business_day(day_date, timezone=timezone)
                await session.execute(_set_reconciled(day_date, now=now))
                await request(session, day=day, trigger=RunTrigger.RECONCILE, now=now)
            requested.append(day_date)
        except Exception as error:
            if is_transaction_lost(error):
                raise
            postponed.append(day_date)
            if not is_lock_conflict(error):
                report_row_error(f"report day {day_date}", error)
    return Reconciliation(requested=requested, postponed=postponed)


def _set_reconciled(day: date, *, now: datetime) -> Update:
    return (
        update(ReportDay)
        .where(col(ReportDay.report_date) == day)
        .values(reconciled_at=now)
        .execution_options(synchronize_session=False)
    )
