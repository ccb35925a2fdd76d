"""Rebuilds of the reports that contain an order which changes."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain import clock
from daybook_domain.advisory_locks import REPORT_DATE, date_key
from daybook_domain.reports.models import Report
from daybook_domain.runs import requests
from daybook_domain.runs.models import ReportRun, RunTrigger

_LOCK_DATES_SHARED = text(
    "SELECT pg_advisory_xact_lock_shared(:lock_class, date_key)"
    " FROM unnest(CAST(:date_keys AS integer[])) AS date_key"
)


_MARK_STALE = text(
    "UPDATE report_days SET stale_since = clock_timestamp()"
    " WHERE report_date = :day AND stale_since IS NULL"
)


_TRY_LOCK_DATES_SHARED = text(
    "SELECT pg_try_advisory_xact_lock_shared(:lock_class, date_key)"
    " FROM unnest(CAST(:date_keys AS integer[])) AS date_key"
)


async def try_lock_report_dates(session: AsyncSession, *, created_at: datetime) -> bool:
    """Lock the dates whose reports may contain the order, as `lock_report_dates`, or return False.

    It never waits, so the caller may have locked products. Some dates may be locked when it
    returns False.
    """
    values = {"lock_class": REPORT_DATE, "date_keys": _date_keys(_candidates(created_at))}
    return all((await session.execute(_TRY_LOCK_DATES_SHARED, values)).scalars())


async def lock_report_dates(
    session: AsyncSession, *, order_id: int, created_at: datetime
) -> Sequence[date]:
    """Lock the dates whose reports may contain the order; return those whose reports do.

    The locks are shared and last until the transaction ends, as in the triggers of migration 0002:
    they wait for a build of these dates that is in progress, and the next one waits for them.
    """
    candidates = _candidates(created_at)
    values = {"lock_class": REPORT_DATE, "date_keys": _date_keys(candidates)}
    await session.execute(_LOCK_DATES_SHARED, values)
    # A separate statement, since only a snapshot taken after the wait contains the build's rows.
    statement = (
        select(Report)
        .where(Report.order_id == order_id, col(Report.report_at).in_(candidates))
        .order_by(col(Report.report_at))
    )
    return [row.report_at for row in (await session.exec(statement)).all()]


async def request_rebuild(
    session: AsyncSession, *, order_id: int, created_at: datetime, reason: str
) -> None:
    """Request a rebuild of each report that contains the order, which the caller then changes.

    The days are also marked as stale until a build has seen the change: the run may fail, or join
    one that is cancelled later.
    """
    days = await lock_report_dates(session, order_id=order_id, created_at=created_at)
    for day in days:
        await session.execute(_MARK_STALE, {"day": day})
        run = ReportRun(
            report_date=day,
            trigger=RunTrigger.RECONCILE,
            reason=reason,
            priority=requests.PRIORITY[RunTrigger.RECONCILE],
            available_at=await clock.now(session),
        )
        await requests.insert_or_join(session, run)
    if days:
        await requests.notify_schedulers(session)


def _candidates(created_at: datetime) -> list[date]:
    # The offset of every zone is less than a day.
    utc_date = created_at.astimezone(UTC).date()
    return [utc_date + timedelta(days=offset) for offset in (-1, 0, 1)]


def _date_keys(days: Sequence[date]) -> list[int]:
    return [date_key(day) for day in days]
