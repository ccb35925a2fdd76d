"""Which runs have still to be sent to the workers, and what became of sending them?

Runs are the outbox of their own messages: what is pending has not been sent, what is queued has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, TextClause, text, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.runs.models import ReportRun, RunState, RunTrigger


@dataclass(frozen=True)
class DispatchItem:
    """What sending a run needs to know of it.

    Not the row itself: to make objects of rows would cost about as much as to send their messages.
    """

    id: UUID
    report_date: date
    trigger: RunTrigger
    scheduled_for: datetime | None
    priority: int
    attempt: int
    available_at: datetime
    fence: int
    """Grows when the run is claimed or reaped, and so has left the hands of its sender."""


async def claim_due(
    session: AsyncSession,
    *,
    now: datetime,
    lease: timedelta,
    limit: int,
    has_to_wait: ColumnElement[bool],
) -> Sequence[DispatchItem]:
    """Move up to `limit` pending runs that are due to queued, and return them, most urgent first.

    Committed before anything is published: a scheduler that crashes in between leaves a queued run
    whose short `lease` expires. Rows that another scheduler has locked are skipped, and so are
    those for which the condition `has_to_wait` holds (`schedules.overlap`).
    """
    due = (
        select(ReportRun.id)
        .where(
            ReportRun.state == RunState.PENDING,
            ReportRun.available_at <= now,
            ~has_to_wait,
        )
        # As the index has them, so that the rest of what is due is not even looked at.
        .order_by(col(ReportRun.priority), col(ReportRun.available_at))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    taken = (
        update(ReportRun)
        .where(col(ReportRun.id) == due.c.id)
        .values(state=RunState.QUEUED, queued_at=now, lease_until=now + lease)
        .returning(*(getattr(ReportRun, field.name) for field in fields(DispatchItem)))
        .execution_options(synchronize_session=False)
    )
    runs = [DispatchItem(*row) for row in await session.execute(taken)]
    return sorted(runs, key=lambda run: (run.priority, run.available_at, run.report_date))


async def mark_sent(
    session: AsyncSession, runs: Sequence[DispatchItem], *, until: datetime
) -> Sequence[DispatchItem]:
    """Record that the broker has the messages: the runs may wait for a worker `until` then.

    Return those that somebody has locked just now. They keep their short lease; unless it is tried
    again, they are taken back and sent a second time.
    """
    return await _mark(session, runs, _MARK_SENT, until=until)


async def mark_unsent(
    session: AsyncSession, runs: Sequence[DispatchItem], *, until: datetime
) -> Sequence[DispatchItem]:
    """Record that the broker took no messages: the runs are pending again, from `until` on.

    A message that did get through after all finds nothing to claim. Return as `mark_sent` does.
    """
    return await _mark(session, runs, _MARK_UNSENT, until=until)


async def _mark(
    session: AsyncSession, runs: Sequence[DispatchItem], statement: TextClause, *, until: datetime
) -> Sequence[DispatchItem]:
    if not runs:
        return []
    keys = {"ids": [run.id for run in runs], "fences": [run.fence for run in runs]}
    held = set((await session.execute(statement, {"until": until, **keys})).scalars())
    return [run for run in runs if run.id in held]


# The fence grows when a run is claimed or reaped: a sender that was held up must not touch what
# has long been in other hands. Nor does it wait for whoever holds a run: besides those who change
# it that is another scheduler which, in the same moment, found it pending and came too late.
_STILL_TAKEN = """
    WITH still AS (
        SELECT run.id, run.fence FROM report_runs AS run
        JOIN unnest(CAST(:ids AS uuid[]), CAST(:fences AS bigint[])) AS taken(id, fence)
            ON run.id = taken.id AND run.fence = taken.fence
        WHERE run.state = 'queued'
    ), free AS (
        SELECT run.id FROM report_runs AS run JOIN still USING (id)
        WHERE run.state = 'queued' AND run.fence = still.fence
        FOR UPDATE OF run SKIP LOCKED
    ), marked AS (
        UPDATE report_runs SET {change} WHERE id IN (SELECT id FROM free) RETURNING id
    )
    SELECT id FROM still EXCEPT SELECT id FROM marked
"""
_MARK_SENT = text(_STILL_TAKEN.format(change="lease_until = :until"))
_MARK_UNSENT = text(
    _STILL_TAKEN.format(
        change="state = 'pending', available_at = :until, lease_until = NULL, queued_at = NULL"
    )
)
