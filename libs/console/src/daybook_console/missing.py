"""Which reports of past days are missing, and how do they get built?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports import queries, service
from daybook_domain.reports.calendar import business_day, local_date
from daybook_domain.reports.models import ReportRun, RunState, RunTrigger

REASON = "the report was missing"


@dataclass(frozen=True)
class Progress:
    """How many of the wanted runs have come to an end, and which of them failed."""

    done: int
    total: int
    failed: Sequence[ReportRun]


async def request(
    session: AsyncSession, *, days: int, timezone: str, now: datetime
) -> Sequence[UUID]:
    """Ask for the report of each of the last `days` days that is not sealed; return the runs."""
    today = local_date(now, timezone=timezone)
    wanted = [today - timedelta(days=back) for back in range(days, 0, -1)]
    known = await queries.days(session, first=wanted[0], last=wanted[-1])
    sealed = {day.report_date for day in known if day.sealed_at is not None}
    return [await _request(session, day, timezone, now) for day in wanted if day not in sealed]


async def _request(session: AsyncSession, day: date, timezone: str, now: datetime) -> UUID:
    requested = await service.request(
        session,
        day=business_day(day, timezone=timezone),
        trigger=RunTrigger.BACKFILL,
        now=now,
        reason=REASON,
        requested_by="daybook run",
    )
    return requested.run.id


async def progress(session: AsyncSession, run_ids: Sequence[UUID]) -> Progress:
    """Return how far these runs have come."""
    mine = col(ReportRun.id).in_(run_ids)
    open_runs = (
        await session.exec(
            select(func.count())
            .select_from(ReportRun)
            .where(mine, col(ReportRun.state).in_(queries.OPEN))
        )
    ).one()
    failed = (
        await session.exec(select(ReportRun).where(mine, ReportRun.state == RunState.FAILED))
    ).all()
    return Progress(done=len(run_ids) - open_runs, total=len(run_ids), failed=failed)
