"""The queue of runs to dispatch: claim those that are due, record whether their messages were sent.

Runs are the outbox of their own messages: a pending run has not been sent, a queued one has.
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
    """The columns of a run that its dispatch needs.

    Not the row itself: creating ORM objects would cost about as much as publishing the messages.
    """

    id: UUID
    report_date: date
    trigger: RunTrigger
    scheduled_for: datetime | None
    priority: int
    attempt: int
    available_at: datetime
    fence: int
    """Incremented when the run is claimed or reaped; the dispatcher must not change it then."""


async def claim_due(
    session: AsyncSession,
    *,
    now: datetime,
    lease: timedelta,
    limit: int,
    has_to_wait: ColumnElement[bool],
) -> Sequence[DispatchItem]:
    """Move up to `limit` pending runs that are due to queued; return them, most urgent first.

    The caller commits before it publishes: if the scheduler crashes in between, the short `lease`
    of the queued runs expires. Rows that are locked by another scheduler are skipped, and so are
    those for which the condition `has_to_wait` is true (`schedules.overlap`).
    """
    due = (
        select(ReportRun.id)
        .where(
            ReportRun.state == RunState.PENDING,
            ReportRun.available_at <= now,
            ~has_to_wait,
        )
        # The order of the index, so that Postgres stops reading it after `limit` rows.
        .order_by(col(ReportRun.priority), col(ReportRun.available_at))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    queue_due = (
        update(ReportRun)
        .where(col(ReportRun.id) == due.c.id)
        .values(state=RunState.QUEUED, queued_at=now, lease_until=now + lease)
        .returning(*(getattr(ReportRun, field.name) for field in fields(DispatchItem)))
        .execution_options(synchronize_session=False)
    )
    items = [DispatchItem(*row) for row in await session.execute(queue_due)]
    return sorted(items, key=lambda item: (item.priority, item.available_at, item.report_date))


async def mark_sent(
    session: AsyncSession, runs: Sequence[DispatchItem], *, until: datetime
) -> Sequence[DispatchItem]:
    """Record that the broker has confirmed the messages: extend the leases of the runs to `until`.

    Return the runs whose rows are locked by another transaction. Their short lease is unchanged:
    unless the caller retries in time, they are reaped and dispatched a second time.
    """
    return await _mark(session, runs, _MARK_SENT, until=until)


async def mark_unsent(
    session: AsyncSession, runs: Sequence[DispatchItem], *, until: datetime
) -> Sequence[DispatchItem]:
    """Record that the messages were not sent: return the runs to pending, available at `until`.

    If a message was delivered nevertheless, its consumer finds no queued run to claim. Return the
    runs whose rows are locked, as `mark_sent` does.
    """
    return await _mark(session, runs, _MARK_UNSENT, until=until)


async def _mark(
    session: AsyncSession, runs: Sequence[DispatchItem], statement: TextClause, *, until: datetime
) -> Sequence[DispatchItem]:
    if not runs:
        return []
    keys = {"ids": [run.id for run in runs], "fences": [run.fence for run in runs]}
    locked = set((await session.execute(statement, {"until": until, **keys})).scalars())
    return [run for run in runs if run.id in locked]


# A claim or a reap increments the fence: a delayed dispatcher must not change a run that was
# claimed or dispatched again meanwhile. Locked rows are skipped instead of waited for: besides the
# transactions that change the run, another scheduler may hold the lock that found it pending at
# the same moment and lost the race to queue it.
_MARK_UNCLAIMED = """
    WITH unclaimed AS (
        SELECT run.id, run.fence FROM report_runs AS run
        JOIN unnest(CAST(:ids AS uuid[]), CAST(:fences AS bigint[])) AS item(id, fence)
            ON run.id = item.id AND run.fence = item.fence
        WHERE run.state = 'queued'
    ), unlocked AS (
        SELECT run.id FROM report_runs AS run JOIN unclaimed USING (id)
        WHERE run.state = 'queued' AND run.fence = unclaimed.fence
        FOR UPDATE OF run SKIP LOCKED
    ), updated AS (
        UPDATE report_runs SET {change} WHERE id IN (SELECT id FROM unlocked) RETURNING id
    )
    SELECT id FROM unclaimed EXCEPT SELECT id FROM updated
"""
_MARK_SENT = text(_MARK_UNCLAIMED.format(change="lease_until = :until"))
_MARK_UNSENT = text(
    _MARK_UNCLAIMED.format(
        change="state = 'pending', available_at = :until, lease_until = NULL, queued_at = NULL"
    )
)
