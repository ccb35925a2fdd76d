"""Reconciliation: rebuilds of recent days for late orders, and of stale days of any age."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import ColumnElement, Update, and_, false, update
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.errors import DaybookError
from daybook_domain.postgres_errors import is_lock_conflict, is_transaction_lost
from daybook_domain.reports.business_day import business_day
from daybook_domain.reports.models import ReportDay
from daybook_domain.row_errors import report_row_error
from daybook_domain.runs.models import RunTrigger
from daybook_domain.runs.requests import request

MAX_DAYS_PER_BATCH = 100
"""Maximum number of days that one transaction requests."""


@dataclass(frozen=True)
class Reconciliation:
    """The dates whose rebuild was requested, and those that could not be requested now."""

    requested: Sequence[date]
    postponed: Sequence[date]


async def reconcile(
    session: AsyncSession,
    *,
    first: date | None,
    timezone: str,
    now: datetime,
    settle: timedelta,
    interval: timedelta,
) -> Reconciliation:
    """Request the rebuild of the days that are due for one, up to `MAX_DAYS_PER_BATCH`.

    A sealed day since `first` is due `settle` after it was sealed and then every `interval`: the
    rebuild adds orders whose transaction committed after the previous build took its snapshot. A
    stale day, whatever its age, is due `settle` after the change, when the run that the change
    requested has usually ended, and then every `interval` until a build has seen the change.
    `first` is None to request stale days only.

    A day whose waiting run is locked is still due at the next call. One that cannot be requested
    for another reason is due again after `interval`, and affects no other.
    """
    due = (
        select(col(ReportDay.report_date))
        .where(
            or_(
                _is_recent(first=first, now=now, settle=settle, interval=interval),
                _is_stale(now=now, settle=settle, interval=interval),
            )
        )
        .order_by(col(ReportDay.report_date))
        .limit(MAX_DAYS_PER_BATCH)
        .with_for_update(skip_locked=True)
    )
    requested, postponed = [], []
    for report_date in (await session.exec(due)).all():
        try:
            async with session.begin_nested():
                await session.execute(_set_reconciled(report_date, now=now))
                day = business_day(report_date, timezone=timezone)
                await request(session, day=day, trigger=RunTrigger.RECONCILE, now=now)
            requested.append(report_date)
        except DaybookError as error:
            # The date has no business day, or has not started because the clock was set back.
            await session.execute(_set_reconciled(report_date, now=now))
            postponed.append(report_date)
            report_row_error(f"report day {report_date}", error)
        except Exception as error:
            if is_transaction_lost(error):
                raise
            postponed.append(report_date)
            if not is_lock_conflict(error):
                report_row_error(f"report day {report_date}", error)
    return Reconciliation(requested=requested, postponed=postponed)


def _set_reconciled(day: date, *, now: datetime) -> Update:
    return (
        update(ReportDay)
        .where(col(ReportDay.report_date) == day)
        .values(reconciled_at=now)
        .execution_options(synchronize_session=False)
    )


def _is_recent(
    *, first: date | None, now: datetime, settle: timedelta, interval: timedelta
) -> ColumnElement[bool]:
    if first is None:
        return false()
    reconciled_at = col(ReportDay.reconciled_at)
    return and_(
        col(ReportDay.report_date) >= first,
        col(ReportDay.sealed_at).is_not(None),
        or_(
            and_(reconciled_at.is_(None), col(ReportDay.sealed_at) <= now - settle),
            reconciled_at <= now - interval,
        ),
    )


def _is_stale(*, now: datetime, settle: timedelta, interval: timedelta) -> ColumnElement[bool]:
    stale_since, reconciled_at = col(ReportDay.stale_since), col(ReportDay.reconciled_at)
    # An instant in the future was stored before the clock was set back: it must not delay.
    return and_(
        stale_since.is_not(None),
        or_(
            and_(
                stale_since <= now - settle,
                or_(reconciled_at.is_(None), reconciled_at <= stale_since),
            ),
            reconciled_at <= now - interval,
            reconciled_at > now,
            and_(stale_since > now, reconciled_at.is_(None)),
        ),
    )
