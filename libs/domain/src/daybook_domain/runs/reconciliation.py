"""Reconciliation: rebuilds of recent days for late orders, and of stale days of any age."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import ColumnElement, and_, false
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.errors import DaybookError
from daybook_domain.reports.business_day import business_day
from daybook_domain.reports.models import ReportDay
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
    for another reason is due again after `interval`, so that it does not delay the others.
    """
    due = (
        select(ReportDay)
        .where(
            or_(
                _is_recent(first=first, now=now, settle=settle, interval=interval),
                _is_stale(now=now, settle=settle, interval=interval),
            )
        )
        .order_by(col(ReportDay.report_date))
        .limit(MAX_DAYS_PER_BATCH)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    requested, postponed = [], []
    for found in (await session.exec(due)).all():
        report_date = found.report_date
        try:
            async with session.begin_nested():
                found.reconciled_at = now
                day = business_day(report_date, timezone=timezone)
                await request(session, day=day, trigger=RunTrigger.RECONCILE, now=now)
            requested.append(report_date)
        except DBAPIError:
            postponed.append(report_date)
        except DaybookError:
            # The date has no business day, or has not started because the clock was set back.
            found.reconciled_at = now
            postponed.append(report_date)
    await session.flush()
    return Reconciliation(requested=requested, postponed=postponed)


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
