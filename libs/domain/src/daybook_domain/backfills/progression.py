"""How does a backfill come from one date to the next? Writes, inside the caller's transaction.

Dates become runs a few at a time, never more of one backfill than its concurrency: so the queue
never holds a range, and whatever is more urgent finds its place.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, exists, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.backfills import queries
from daybook_domain.backfills.decisions import DayAction, DayDecision, decide
from daybook_domain.backfills.models import Backfill, BackfillDay, BackfillDayOutcome, BackfillState
from daybook_domain.reports.business_day import business_day
from daybook_domain.runs import requests
from daybook_domain.runs.errors import FutureDay
from daybook_domain.runs.models import RunTrigger

MAX_DATES_PER_BATCH = 500
"""How many dates of one backfill one transaction decides about; the rest follows in the next."""


async def advance(session: AsyncSession, *, timezone: str, now: datetime, limit: int) -> int:
    """Bring up to `limit` backfills forward; return how many dates were decided about.

    One that somebody holds up, or that a clock put back has brought to a day to come, is passed
    over, and stops no other.
    """
    decided = 0
    for backfill in await _unfinished(session, limit=limit):
        try:
            async with session.begin_nested():
                decided += await _advance(session, backfill, timezone=timezone, now=now)
        except (DBAPIError, FutureDay):
            await session.refresh(backfill)
    return decided


async def _unfinished(session: AsyncSession, *, limit: int) -> Sequence[Backfill]:
    """Lock and return backfills of which something is going on, oldest first.

    Those that another scheduler holds are passed over.
    """
    is_open = exists().where(
        col(BackfillDay.backfill_id) == Backfill.id,
        col(BackfillDay.outcome) == BackfillDayOutcome.OPEN,
    )
    statement = (
        select(Backfill)
        .where(
            col(Backfill.finished_at).is_(None),
            or_(Backfill.state != BackfillState.PAUSED, is_open),
        )
        .order_by(col(Backfill.created_at))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).all()


async def _advance(
    session: AsyncSession, backfill: Backfill, *, timezone: str, now: datetime
) -> int:
    room = backfill.concurrency - await _settle(session, backfill, timezone=timezone, now=now)
    decided = 0
    if backfill.state is BackfillState.RUNNING:
        decided = await _hand_out(session, backfill, room, timezone=timezone, now=now)
    # What was found built already is settled at once.
    going_on = await _settle(session, backfill, timezone=timezone, now=now)
    if not going_on and backfill.state is BackfillState.CANCELLED:
        backfill.finished_at = now
    elif not going_on and backfill.next_date > backfill.to_date:
        backfill.state, backfill.finished_at = BackfillState.FINISHED, now
    await session.flush()
    return decided


_OPEN = """
    SELECT d.report_date, d.joined, coalesce(work.id, run.id, d.run_id) AS run_id,
        coalesce(work.state, run.state, 'cancelled') AS state
    FROM backfill_days AS d
    LEFT JOIN report_runs AS run ON run.id = d.run_id
    LEFT JOIN report_runs AS work ON work.id = run.joined_run_id AND run.cause = 'joined'
    WHERE d.backfill_id = :id AND d.outcome = 'open'
"""

# Where somebody cancelled what was joined, the date is still wanted.
_LOST = text(f"SELECT report_date FROM ({_OPEN}) AS day WHERE joined AND state = 'cancelled'")

_SETTLE = text(
    f"""
    UPDATE backfill_days AS kept SET
        outcome = CASE WHEN day.state IN ('succeeded', 'failed') THEN day.state
            ELSE 'cancelled' END,
        run_id = day.run_id, settled_at = :now
    FROM ({_OPEN}) AS day
    WHERE kept.backfill_id = :id AND kept.report_date = day.report_date
        AND day.state NOT IN ('pending', 'queued', 'running')
    """
)

_COUNT_OPEN = text(
    "SELECT count(*) FROM backfill_days WHERE backfill_id = :id AND outcome = 'open'"
)


async def _settle(
    session: AsyncSession, backfill: Backfill, *, timezone: str, now: datetime
) -> int:
    """Write down what has become of the dates under way; return how many still are."""
    this = {"id": backfill.id}
    if backfill.state is BackfillState.RUNNING:
        for day in (await session.execute(_LOST, this)).scalars().all():
            run = await _request(session, backfill, day, timezone=timezone, now=now)
            await session.execute(
                _ASK_AGAIN, {**this, "day": day, "run_id": run.run.id, "joined": run.joined}
            )
    await session.execute(_SETTLE, {**this, "now": now})
    going_on: int = (await session.execute(_COUNT_OPEN, this)).scalar_one()
    return going_on


_ASK_AGAIN = text(
    "UPDATE backfill_days SET run_id = :run_id, joined = :joined"
    " WHERE backfill_id = :id AND report_date = :day"
)


async def _hand_out(
    session: AsyncSession, backfill: Backfill, room: int, *, timezone: str, now: datetime
) -> int:
    """Decide about the next dates, until as many are under way as may be."""
    if room <= 0:
        return 0
    lines = list[dict[str, Any]]()
    days = _next_dates(backfill)
    facts = await queries.get_day_facts(session, days)
    for day in days:
        found = business_day(day, timezone=timezone)
        decision = decide(backfill.mode, found, facts[day], since=backfill.created_at)
        if decision.verdict.outcome is BackfillDayOutcome.OPEN:
            if not room:
                break
            room -= 1
        lines.append(await _line(session, backfill, day, decision, timezone=timezone, now=now))
        backfill.next_date = day + timedelta(days=1)
    if lines:
        await session.execute(BackfillDay.__table__.insert(), lines)  # type: ignore[attr-defined]
    return len(lines)


def _next_dates(backfill: Backfill) -> Sequence[date]:
    left = (backfill.to_date - backfill.next_date).days + 1
    return [backfill.next_date + timedelta(days=n) for n in range(min(left, MAX_DATES_PER_BATCH))]


async def _line(
    session: AsyncSession,
    backfill: Backfill,
    day: date,
    decision: DayDecision,
    *,
    timezone: str,
    now: datetime,
) -> dict[str, Any]:
    run_id: UUID | None = decision.run_id
    joined = decision.verdict is DayAction.JOIN
    if decision.verdict is DayAction.BUILD:
        requested = await _request(session, backfill, day, timezone=timezone, now=now)
        run_id, joined = requested.run.id, requested.joined
    outcome = decision.verdict.outcome
    return {
        "backfill_id": backfill.id,
        "report_date": day,
        "outcome": outcome,
        "run_id": run_id,
        "joined": joined,
        "settled_at": None if outcome is BackfillDayOutcome.OPEN else now,
    }


async def _request(
    session: AsyncSession, backfill: Backfill, day: date, *, timezone: str, now: datetime
) -> requests.RequestedRun:
    return await requests.request(
        session,
        day=business_day(day, timezone=timezone),
        trigger=RunTrigger.BACKFILL,
        now=now,
        reason=backfill.reason,
        requested_by=backfill.requested_by,
        backfill_id=backfill.id,
    )
