"""Which runs have still to be sent to the workers, and what became of sending them?

Runs are the outbox of their own messages: what is pending has not been sent, what is queued has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, exists, text, update
from sqlalchemy.orm import aliased
from sqlmodel import and_, col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports.models import ReportRun, RunState, RunTrigger
from daybook_domain.schedules.models import Overlap, Schedule


@dataclass(frozen=True)
class Taken:
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


async def take(
    session: AsyncSession, *, now: datetime, lease: timedelta, limit: int
) -> Sequence[Taken]:
    """Move up to `limit` pending runs that are due to queued, and return them, urgent first.

    Committed before anything is published: whoever crashes in between leaves a queued run whose
    short `lease` runs out. Rows that another scheduler holds are passed over, and so are those
    that have to wait for other work of their schedule.
    """
    due = (
        select(ReportRun.id)
        .where(
            ReportRun.state == RunState.PENDING,
            ReportRun.available_at <= now,
            ~_has_work_before_it(),
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
        .returning(*(getattr(ReportRun, field.name) for field in fields(Taken)))
        .execution_options(synchronize_session=False)
    )
    runs = [Taken(*row) for row in await session.execute(taken)]
    return sorted(runs, key=lambda run: (run.priority, run.available_at, run.report_date))


def _has_work_before_it() -> ColumnElement[bool]:
    """Tell of a run whether one of its schedule is under way or pending for an earlier fire.

    Only the earliest may be taken, so two schedulers cannot take two; except where the schedule
    allows overlap.
    """
    other = aliased(ReportRun)
    before = or_(
        col(other.state).in_((RunState.QUEUED, RunState.RUNNING)),
        and_(
            other.state == RunState.PENDING,
            col(other.scheduled_for) < col(ReportRun.scheduled_for),
        ),
    )
    return exists(
        select(other.id)
        .join(Schedule, col(Schedule.id) == col(other.schedule_id))
        .where(
            other.schedule_id == ReportRun.schedule_id,
            Schedule.overlap != Overlap.ALLOW,
            before,
        )
        .correlate(ReportRun)
    )


async def mark_sent(session: AsyncSession, runs: Sequence[Taken], *, until: datetime) -> None:
    """Record that the broker has the messages: the runs may wait for a worker `until` then."""
    await session.execute(_MARK_SENT, {"until": until, **_keys(runs)})


async def mark_unsent(session: AsyncSession, runs: Sequence[Taken], *, until: datetime) -> None:
    """Record that the broker took no messages: the runs are pending again, from `until` on.

    A message that did get through after all finds nothing to claim.
    """
    await session.execute(_MARK_UNSENT, {"until": until, **_keys(runs)})


# The fence grows when a run is claimed or reaped: a sender that was held up must not touch what
# has long been in other hands. What somebody has locked keeps its short lease.
_STILL_TAKEN = """
    WHERE id IN (
        SELECT run.id FROM report_runs AS run
        JOIN unnest(CAST(:ids AS uuid[]), CAST(:fences AS bigint[])) AS taken(id, fence)
            ON run.id = taken.id AND run.fence = taken.fence
        WHERE run.state = 'queued'
        FOR UPDATE OF run SKIP LOCKED
    )
"""
_MARK_SENT = text("UPDATE report_runs SET lease_until = :until" + _STILL_TAKEN)
_MARK_UNSENT = text(
    "UPDATE report_runs SET state = 'pending', available_at = :until, lease_until = NULL,"
    " queued_at = NULL" + _STILL_TAKEN
)


def _keys(runs: Sequence[Taken]) -> dict[str, object]:
    return {"ids": [run.id for run in runs], "fences": [run.fence for run in runs]}
