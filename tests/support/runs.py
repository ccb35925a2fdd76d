"""How does a test bring a run into the state that it is about?"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from sqlalchemy import update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports.business_day import business_day
from daybook_domain.runs import claims, dispatch_queue, queries, requests
from daybook_domain.runs.dispatch_queue import DispatchItem
from daybook_domain.runs.models import ReportRun, RunTrigger
from daybook_domain.schedules import overlap
from daybook_platform.postgres.engine import Sessions

DAY = date(2026, 3, 1)
NOW = datetime(2026, 3, 2, 0, 5, tzinfo=UTC)
"""Soon after the end of `DAY`."""

LEASE = timedelta(seconds=30)


async def request(
    session: AsyncSession,
    *,
    day: date = DAY,
    now: datetime = NOW,
    trigger: RunTrigger = RunTrigger.MANUAL,
) -> requests.RequestedRun:
    """Ask for the report of a day in UTC."""
    found = business_day(day, timezone="UTC")
    return await requests.request(session, day=found, trigger=trigger, now=now)


async def claim_due(
    session: AsyncSession, *, now: datetime = NOW, lease: timedelta = LEASE, limit: int
) -> Sequence[DispatchItem]:
    """Claim due runs for dispatch, as a scheduler does."""
    return await dispatch_queue.claim_due(
        session, now=now, lease=lease, limit=limit, has_to_wait=overlap.has_earlier_work()
    )


async def pending(sessions: Sessions, *, day: date = DAY, now: datetime = NOW) -> ReportRun:
    """Return a run that waits to be sent."""
    async with sessions.begin() as session:
        return (await request(session, day=day, now=now)).run


async def queued(sessions: Sessions, *, day: date = DAY, now: datetime = NOW) -> DispatchItem:
    """Return a run that has been taken to be sent."""
    await pending(sessions, day=day)
    async with sessions.begin() as session:
        (run,) = await claim_due(session, now=now, lease=LEASE, limit=1)
    return run


async def running(
    sessions: Sessions, *, day: date = DAY, now: datetime = NOW, attempt: int = 1
) -> ReportRun:
    """Return a run that a worker has claimed, for the `attempt`th time."""
    run = await queued(sessions, day=day, now=now)
    async with sessions.begin() as session:
        await session.execute(
            update(ReportRun).where(col(ReportRun.id) == run.id).values(attempt=attempt - 1)
        )
        claimed = await claims.claim_next(session, run.id, worker="w1", now=now, lease=LEASE)
    assert claimed is not None
    return claimed


async def find(sessions: Sessions, run_id: UUID) -> ReportRun:
    """Return a run as it is now."""
    async with sessions() as session:
        return await queries.get_run(session, run_id)


async def everything(sessions: Sessions) -> list[ReportRun]:
    """Return all runs: those of fires by due time, then the others by date."""
    async with sessions() as session:
        statement = select(ReportRun).order_by(
            col(ReportRun.scheduled_for), col(ReportRun.report_date), col(ReportRun.created_at)
        )
        return list((await session.exec(statement)).all())
