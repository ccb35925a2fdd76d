"""Progression of backfills from date to date, in the caller's transaction.

A backfill has at most `concurrency` pending or running runs, so a long range does not fill the
dispatch queue and delay more urgent runs.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, exists, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.backfills import queries
from daybook_domain.backfills.decisions import DayAction, DayDecision, decide
from daybook_domain.backfills.models import Backfill, BackfillDay, BackfillDayOutcome, BackfillState
from daybook_domain.errors import Invalid
from daybook_domain.postgres_errors import is_lock_conflict, is_transaction_lost
from daybook_domain.reports.business_day import business_day
from daybook_domain.row_errors import report_row_error
from daybook_domain.runs import requests
from daybook_domain.runs.errors import FutureDay
from daybook_domain.runs.models import RunTrigger

MAX_DATES_PER_BATCH = 500
"""Maximum dates of one backfill that one transaction decides about."""


async def advance(session: AsyncSession, *, timezone: str, now: datetime, limit: int) -> int:
    """Advance up to `limit` backfills; return the number of dates that were decided about.

    A backfill that fails does not affect the others: a row of it is locked, its next date is in
    the future because the clock went back, or its dates cannot be reported.
    """
    decided = 0
    for backfill in await _list_unfinished_for_update(session, limit=limit):
        backfill_id = backfill.id
        try:
            async with session.begin_nested():
                decided += await _advance(session, backfill, timezone=timezone, now=now)
        except Exception as error:
            if is_transaction_lost(error):
                raise
            await session.refresh(backfill)
            if is_lock_conflict(error) or isinstance(error, FutureDay):
                continue
            report_row_error(f"backfill {backfill_id}", error)
            if isinstance(error, Invalid):
                await _stop(session, backfill, error)
    return decided


async def _stop(session: AsyncSession, backfill: Backfill, error: Invalid) -> None:
    """Cancel a backfill whose next date has no report, and store why."""
    backfill.state = BackfillState.CANCELLED
    backfill.reason = "; ".join(filter(None, (f"stopped: {error.detail}", backfill.reason)))[:500]
    await session.flush()


async def _list_unfinished_for_update(session: AsyncSession, *, limit: int) -> Sequence[Backfill]:
    """Lock and return the backfills that can advance, oldest first.

    Backfills that another scheduler has locked are skipped.
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
    open_dates = await _settle(session, backfill, timezone=timezone, now=now)
    decided = 0
    if backfill.state is BackfillState.RUNNING:
        decided = await _start_dates(
            session,
            backfill,
            slots=backfill.concurrency - open_dates,
            timezone=timezone,
            now=now,
        )
    # Dates that joined a run that has already ended are settled immediately.
    open_dates = await _settle(session, backfill, timezone=timezone, now=now)
    if not open_dates and backfill.state is BackfillState.CANCELLED:
        backfill.finished_at = now
    elif not open_dates and backfill.next_date > backfill.to_date:
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

# The backfill still has to build a date whose joined run was cancelled.
_LIST_LOST = text(f"SELECT report_date FROM ({_OPEN}) AS day WHERE joined AND state = 'cancelled'")

_SETTLE = text(
    f"""
    UPDATE backfill_days AS stored SET
        outcome = CASE WHEN day.state IN ('succeeded', 'failed') THEN day.state
            ELSE 'cancelled' END,
        run_id = day.run_id, settled_at = :now
    FROM ({_OPEN}) AS day
    WHERE stored.backfill_id = :id AND stored.report_date = day.report_date
        AND day.state NOT IN ('pending', 'queued', 'running')
    """
)

_COUNT_OPEN = text(
    "SELECT count(*) FROM backfill_days WHERE backfill_id = :id AND outcome = 'open'"
)


async def _settle(
    session: AsyncSession, backfill: Backfill, *, timezone: str, now: datetime
) -> int:
    """Store the outcomes of open dates whose run has ended; return the number of open dates."""
    this = {"id": backfill.id}
    if backfill.state is BackfillState.RUNNING:
        for day in (await session.execute(_LIST_LOST, this)).scalars().all():
            run = await _request(session, backfill, day, timezone=timezone, now=now)
            await session.execute(
                _REPLACE_RUN, {**this, "day": day, "run_id": run.run.id, "joined": run.joined}
            )
    await session.execute(_SETTLE, {**this, "now": now})
    open_dates: int = (await session.execute(_COUNT_OPEN, this)).scalar_one()
    return open_dates


_REPLACE_RUN = text(
    "UPDATE backfill_days SET run_id = :run_id, joined = :joined"
    " WHERE backfill_id = :id AND report_date = :day"
)


async def _start_dates(
    session: AsyncSession, backfill: Backfill, *, slots: int, timezone: str, now: datetime
) -> int:
    """Decide about the next dates until `slots` of them are open; return the number decided."""
    if slots <= 0:
        return 0
    rows = list[dict[str, Any]]()
    days = _next_dates(backfill)
    facts = await queries.get_day_facts(session, days)
    for day in days:
        decision = decide(
            backfill.mode,
            business_day(day, timezone=timezone),
            facts[day],
            since=backfill.created_at,
        )
        if decision.action.initial_outcome is BackfillDayOutcome.OPEN:
            if not slots:
                break
            slots -= 1
        rows.append(await _start_date(session, backfill, day, decision, timezone=timezone, now=now))
        backfill.next_date = day + timedelta(days=1)
    if rows:
        await session.execute(BackfillDay.__table__.insert(), rows)  # type: ignore[attr-defined]
    return len(rows)


def _next_dates(backfill: Backfill) -> Sequence[date]:
    remaining = (backfill.to_date - backfill.next_date).days + 1
    count = min(remaining, MAX_DATES_PER_BATCH)
    return [backfill.next_date + timedelta(days=n) for n in range(count)]


async def _start_date(
    session: AsyncSession,
    backfill: Backfill,
    day: date,
    decision: DayDecision,
    *,
    timezone: str,
    now: datetime,
) -> dict[str, Any]:
    """Request the run of a date if needed; return the row of `backfill_days`."""
    run_id: UUID | None = decision.run_id
    joined = decision.action is DayAction.JOIN
    if decision.action is DayAction.BUILD:
        requested = await _request(session, backfill, day, timezone=timezone, now=now)
        run_id, joined = requested.run.id, requested.joined
    outcome = decision.action.initial_outcome
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
