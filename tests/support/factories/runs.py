"""Factories of runs, one for each state."""

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
from daybook_platform.postgres.sessions import Sessions

DAY = date(2026, 3, 1)
NOW = datetime(2026, 3, 2, 0, 5, tzinfo=UTC)
"""Five minutes after the end of `DAY`."""

LEASE = timedelta(seconds=30)


async def request_run(
    session: AsyncSession,
    *,
    day: date = DAY,
    now: datetime = NOW,
    trigger: RunTrigger = RunTrigger.MANUAL,
) -> requests.RequestedRun:
    """Request the report of a day in UTC."""
    requested_day = business_day(day, timezone="UTC")
    return await requests.request(session, day=requested_day, trigger=trigger, now=now)


async def claim_due_runs(
    session: AsyncSession, *, now: datetime = NOW, lease: timedelta = LEASE, limit: int
) -> Sequence[DispatchItem]:
    """Claim due runs for dispatch, as a scheduler does."""
    return await dispatch_queue.claim_due(
        session, now=now, lease=lease, limit=limit, has_to_wait=overlap.has_earlier_work()
    )


async def create_pending_run(
    sessions: Sessions, *, day: date = DAY, now: datetime = NOW
) -> ReportRun:
    """Return a pending run, requested at `now`."""
    async with sessions.begin() as session:
        return (await request_run(session, day=day, now=now)).run


async def queue_run(sessions: Sessions, *, day: date = DAY, now: datetime = NOW) -> DispatchItem:
    """Return a new run that is claimed for dispatch."""
    await create_pending_run(sessions, day=day)
    async with sessions.begin() as session:
        (run,) = await claim_due_runs(session, now=now, lease=LEASE, limit=1)
    return run


async def claim_run(
    sessions: Sessions, *, day: date = DAY, now: datetime = NOW, attempt: int = 1
) -> ReportRun:
    """Return a new run that worker `w1` has claimed for attempt number `attempt`."""
    run = await queue_run(sessions, day=day, now=now)
    async with sessions.begin() as session:
        await session.execute(
            update(ReportRun).where(col(ReportRun.id) == run.id).values(attempt=attempt - 1)
        )
        claimed = await claims.claim_next(session, run.id, worker="w1", now=now, lease=LEASE)
    assert claimed is not None
    return claimed


async def get_run(sessions: Sessions, run_id: UUID) -> ReportRun:
    """Return the current state of a run."""
    async with sessions() as session:
        return await queries.get_run(session, run_id)


async def list_all_runs(sessions: Sessions) -> list[ReportRun]:
    """Return all runs: those of fires by nominal time, then the others by date."""
    async with sessions() as session:
        statement = select(ReportRun).order_by(
            col(ReportRun.scheduled_for), col(ReportRun.report_date), col(ReportRun.created_at)
        )
        return list((await session.exec(statement)).all())
