"""Which runs have still to be sent to the workers, and what became of sending them?

Runs are the outbox of their own messages: what is pending has not been sent, what is queued has.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Update, exists, update
from sqlalchemy.orm import aliased
from sqlmodel import and_, col, or_, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports.models import ReportRun, RunState
from daybook_domain.schedules.models import Overlap, Schedule


async def take(
    session: AsyncSession, *, now: datetime, lease: timedelta, limit: int
) -> Sequence[ReportRun]:
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
        .returning(ReportRun)
        .execution_options(populate_existing=True)
    )
    runs = (await session.scalars(taken)).all()
    return sorted(runs, key=lambda run: (run.priority, run.available_at, run.report_date))


def _has_work_before_it() -> ColumnElement[bool]:
    """Tell of a run whether one of its schedule is under way or pending for an earlier fire.

    Only the earliest may be taken, so two schedulers cannot take two; except where the schedule
    allows overlap.
    """
    other = aliased(ReportRun)
    # Each of the three states by name, as the index of what is open has them.
    before = and_(
        col(other.state).in_((RunState.PENDING, RunState.QUEUED, RunState.RUNNING)),
        or_(
            other.state != RunState.PENDING,
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
        # Asked of one run after the other. Without it Postgres makes a join of it, of all that is
        # pending with all that is open, as long as its statistics know of neither: longer than a
        # transaction may take, where ten thousand come due at once.
        .offset(0)
    )


async def mark_sent(session: AsyncSession, runs: Sequence[ReportRun], *, until: datetime) -> None:
    """Record that the broker has the messages: the runs may wait for a worker `until` then."""
    await session.execute(_still_taken(runs).values(lease_until=until))


async def mark_unsent(session: AsyncSession, runs: Sequence[ReportRun], *, until: datetime) -> None:
    """Record that the broker took no messages: the runs are pending again, from `until` on.

    A message that did get through after all finds nothing to claim.
    """
    await session.execute(
        _still_taken(runs).values(
            state=RunState.PENDING, available_at=until, lease_until=None, queued_at=None
        )
    )


def _still_taken(runs: Sequence[ReportRun]) -> Update:
    # The fence grows when a run is claimed or reaped: a sender that was held up must not touch
    # what has long been in other hands. What somebody has locked keeps its short lease.
    key = tuple_(col(ReportRun.id), col(ReportRun.fence))
    free = (
        select(ReportRun.id)
        .where(
            ReportRun.state == RunState.QUEUED,
            key.in_([(run.id, run.fence) for run in runs]),
        )
        .with_for_update(skip_locked=True)
    )
    return (
        update(ReportRun)
        .where(col(ReportRun.id).in_(free))
        .execution_options(synchronize_session=False)
    )
