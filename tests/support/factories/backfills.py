"""Factories of backfills, and the steps of schedulers and workers that complete them."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.backfills import progression, queries, service
from daybook_domain.backfills.models import Backfill
from daybook_domain.backfills.queries import BackfillDayStatus, BackfillProgress
from daybook_domain.backfills.service import BackfillRange
from daybook_domain.runs import claims
from daybook_domain.runs.models import ReportRun, RunState
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import claim_due_runs

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
LEASE = timedelta(seconds=30)

FIRST, LAST = date(2026, 3, 1), date(2026, 3, 5)


def march(day: int) -> date:
    """Return that day of March 2026."""
    return date(2026, 3, day)


async def request_backfill(
    sessions: Sessions,
    first: date = FIRST,
    last: date = LAST,
    *,
    now: datetime = NOW,
    **options: Any,
) -> service.RequestedBackfill:
    """Request a backfill of a range of dates in UTC.

    `options` are those of `service.request`, and the `mode` of the range.
    """
    wanted = BackfillRange(
        first=first, last=last, **{k: options.pop(k) for k in ("mode",) if k in options}
    )
    async with sessions.begin() as session:
        return await service.request(session, wanted=wanted, timezone="UTC", now=now, **options)


async def advance_backfills(sessions: Sessions, *, now: datetime = NOW) -> int:
    """Run one backfill step of the scheduler."""
    async with sessions.begin() as session:
        return await progression.advance(session, timezone="UTC", now=now, limit=100)


async def finish_due_runs(
    sessions: Sessions, *, now: datetime = NOW, final_state: RunState = RunState.SUCCEEDED
) -> list[ReportRun]:
    """Claim and finish all due runs; a run that succeeds seals its day."""
    async with sessions.begin() as session:
        due = await claim_due_runs(session, now=now, lease=LEASE, limit=100)
    finished = []
    for item in due:
        async with sessions.begin() as session:
            run = await claims.claim_next(session, item.id, worker="w", now=now, lease=LEASE)
            assert run is not None
            await finish_run(session, run, final_state, now)
        finished.append(run)
    return finished


async def finish_run(session: AsyncSession, run: ReportRun, state: RunState, now: datetime) -> None:
    """Set the final state of a run; a run that succeeds seals its day."""
    await session.execute(
        text("UPDATE report_runs SET state = :state, finished_at = :now WHERE id = :id"),
        {"state": state.value, "now": now, "id": run.id},
    )
    if state is RunState.SUCCEEDED:
        await seal_day(session, run.report_date, now=now)


async def seal_day(session: AsyncSession, day: date, *, now: datetime = NOW) -> None:
    """Insert a sealed report of `day`, unless the day already has a report."""
    await session.execute(
        text(
            "INSERT INTO report_days (report_date, revision, orders_count, products_count, digest,"
            " data_through, built_at, sealed_at, announced_revision)"
            " VALUES (:day, 1, 0, 0, 'd', :now, :now, :now, 0) ON CONFLICT DO NOTHING"
        ),
        {"day": day, "now": now},
    )


async def finish_backfills(sessions: Sessions, *, now: datetime = NOW) -> Counter[date]:
    """Advance all backfills until they are finished; return the number of builds per date."""
    built: Counter[date] = Counter()
    while await advance_backfills(sessions, now=now) or await has_unfinished_backfills(sessions):
        built.update(run.report_date for run in await finish_due_runs(sessions, now=now))
    return built


async def has_unfinished_backfills(sessions: Sessions) -> bool:
    """Return whether any backfill is unfinished."""
    async with sessions() as session:
        found = select(Backfill).where(col(Backfill.finished_at).is_(None))
        return (await session.exec(found.limit(1))).first() is not None


async def get_backfill(sessions: Sessions, requested: service.RequestedBackfill) -> Backfill:
    """Return the current state of a backfill."""
    async with sessions() as session:
        return await queries.get_backfill(session, requested.backfill.id)


async def list_backfill_days(
    sessions: Sessions, requested: service.RequestedBackfill
) -> list[BackfillDayStatus]:
    """Return the dates that a backfill has processed."""
    async with sessions() as session:
        return await queries.list_backfill_days(session, requested.backfill.id, limit=10_000)


async def get_backfill_progress(
    sessions: Sessions, requested: service.RequestedBackfill, *, now: datetime = NOW
) -> BackfillProgress:
    """Return the progress of a backfill."""
    async with sessions() as session:
        backfill = await queries.get_backfill(session, requested.backfill.id)
        return (await queries.get_progress(session, [backfill], now=now))[backfill.id]
