"""How does a test ask for a backfill, and let time go by for it?"""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.backfills import progression as advancing
from daybook_domain.backfills import queries, service
from daybook_domain.backfills.models import Backfill
from daybook_domain.backfills.queries import BackfillDayStatus, BackfillProgress
from daybook_domain.backfills.service import BackfillRange
from daybook_domain.runs import claims
from daybook_domain.runs.models import ReportRun, RunState
from daybook_platform.postgres.engine import Sessions
from tests.support.runs import claim_due

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
LEASE = timedelta(seconds=30)


FIRST, LAST = date(2026, 3, 1), date(2026, 3, 5)


def march(day: int) -> date:
    """Return that day of March 2026."""
    return date(2026, 3, day)


async def ask(
    sessions: Sessions,
    first: date = FIRST,
    last: date = LAST,
    *,
    now: datetime = NOW,
    **more: Any,
) -> service.RequestedBackfill:
    """Ask for a range of dates in UTC."""
    wanted = BackfillRange(
        first=first, last=last, **{k: more.pop(k) for k in ("mode",) if k in more}
    )
    async with sessions.begin() as session:
        return await service.request(session, wanted=wanted, timezone="UTC", now=now, **more)


async def advance(sessions: Sessions, *, now: datetime = NOW) -> int:
    """Do what a scheduler does for backfills, once."""
    async with sessions.begin() as session:
        return await advancing.advance(session, timezone="UTC", now=now, limit=100)


async def work(
    sessions: Sessions, *, now: datetime = NOW, ends: RunState = RunState.SUCCEEDED
) -> list[ReportRun]:
    """Let workers take and end all that can be sent; a success seals the day of the run."""
    async with sessions.begin() as session:
        taken = await claim_due(session, now=now, lease=LEASE, limit=100)
    claimed = []
    for run in taken:
        async with sessions.begin() as session:
            mine = await claims.claim_next(session, run.id, worker="w", now=now, lease=LEASE)
            assert mine is not None
            await end(session, mine, ends, now)
        claimed.append(mine)
    return claimed


async def end(session: AsyncSession, run: ReportRun, state: RunState, now: datetime) -> None:
    """Let a run come to its end."""
    await session.execute(
        text("UPDATE report_runs SET state = :state, finished_at = :now WHERE id = :id"),
        {"state": state.value, "now": now, "id": run.id},
    )
    if state is RunState.SUCCEEDED:
        await seal(session, run.report_date, now=now)


async def seal(session: AsyncSession, day: date, *, now: datetime = NOW) -> None:
    """Let there be a sealed report of `day`."""
    await session.execute(
        text(
            "INSERT INTO report_days (report_date, revision, orders_count, products_count, digest,"
            " data_through, built_at, sealed_at, announced_revision)"
            " VALUES (:day, 1, 0, 0, 'd', :now, :now, :now, 0) ON CONFLICT DO NOTHING"
        ),
        {"day": day, "now": now},
    )


async def to_its_end(sessions: Sessions, *, now: datetime = NOW) -> Counter[date]:
    """Let all backfills come to their end; return how often each date was built."""
    built: Counter[date] = Counter()
    while await advance(sessions, now=now) or await going(sessions):
        built.update(run.report_date for run in await work(sessions, now=now))
    return built


async def going(sessions: Sessions) -> bool:
    """Tell whether some backfill has not come to its end."""
    async with sessions() as session:
        found = select(Backfill).where(col(Backfill.finished_at).is_(None))
        return (await session.exec(found.limit(1))).first() is not None


async def find(sessions: Sessions, requested: service.RequestedBackfill) -> Backfill:
    """Return a backfill as it is now."""
    async with sessions() as session:
        return await queries.get_backfill(session, requested.backfill.id)


async def days(sessions: Sessions, requested: service.RequestedBackfill) -> list[BackfillDayStatus]:
    """Return the dates that a backfill has come to."""
    async with sessions() as session:
        return await queries.list_backfill_days(session, requested.backfill.id, limit=10_000)


async def progress(
    sessions: Sessions, requested: service.RequestedBackfill, *, now: datetime = NOW
) -> BackfillProgress:
    """Return how far a backfill has come."""
    async with sessions() as session:
        backfill = await queries.get_backfill(session, requested.backfill.id)
        return (await queries.get_progress(session, [backfill], now=now))[backfill.id]
