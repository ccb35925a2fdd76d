"""Which reports count an order, and what becomes of them when it changes?"""

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

_HOLD = text(
    "SELECT pg_advisory_xact_lock_shared(:lock_class, day)"
    " FROM unnest(CAST(:days AS integer[])) AS day"
)


async def lock_report_dates(
    session: AsyncSession, *, order_id: int, created_at: datetime
) -> Sequence[date]:
    """Return the dates whose reports count the order; that stays so until the transaction ends.

    As the triggers of migration 0002 do: a build under way is waited for, and the next one waits
    for the caller.
    """
    # No zone is a whole day away from UTC.
    near = [created_at.astimezone(UTC).date() + timedelta(days=k) for k in (-1, 0, 1)]
    days = [date_key(day) for day in near]
    await session.execute(_HOLD, {"lock_class": REPORT_DATE, "days": days})
    # Only a statement that begins after the wait sees what was waited for.
    statement = (
        select(Report)
        .where(Report.order_id == order_id, col(Report.report_at).in_(near))
        .order_by(col(Report.report_at))
    )
    return [row.report_at for row in (await session.exec(statement)).all()]


async def request_rebuild(
    session: AsyncSession, *, order_id: int, created_at: datetime, reason: str
) -> None:
    """Ask for the rebuild of the reports that count the order, which the caller changes."""
    days = await lock_report_dates(session, order_id=order_id, created_at=created_at)
    for day in days:
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
