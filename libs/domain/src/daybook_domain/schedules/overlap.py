"""Overlap policy: which fires and pending runs wait for earlier work of their schedule."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sqlalchemy import ColumnElement, exists
from sqlalchemy.orm import aliased
from sqlmodel import and_, col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.runs import fire_ledger
from daybook_domain.runs.fire_ledger import Fire
from daybook_domain.runs.models import ReportRun, RunState, SkipCause
from daybook_domain.schedules.models import Overlap, Schedule


def has_earlier_work() -> ColumnElement[bool]:
    """Return the condition that a pending run has to wait for earlier work of its schedule.

    Earlier work is a run in progress, or a pending run of an earlier fire. Unless the schedule
    allows overlap, only the earliest run is dispatched, so two schedulers cannot dispatch two.
    """
    other = aliased(ReportRun)
    # The three states are spelled as in the partial index of open runs, so that it is used.
    is_before = and_(
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
            is_before,
        )
        .correlate(ReportRun)
        # OFFSET makes Postgres evaluate the subquery per run. Without it, and with statistics from
        # before the runs existed, the planner joins all pending with all open runs; with ten
        # thousand fires due together that exceeds the transaction timeout.
        .offset(0)
    )


async def apply_overlap_policy(
    session: AsyncSession, due: Sequence[tuple[Schedule, Sequence[Fire]]]
) -> list[Fire]:
    """Return the fires; those that the policy `skip` skips have a cause and a reason."""
    skipping = [
        schedule.id
        for schedule, _ in due
        if schedule.overlap is Overlap.SKIP and schedule.id is not None
    ]
    busy = await fire_ledger.list_busy_schedules(session, skipping)
    decided = list[Fire]()
    for schedule, fires in due:
        if schedule.overlap is Overlap.SKIP:
            decided += _skip_overlapping(fires, busy=schedule.id in busy)
        else:
            decided += fires
    return decided


def _skip_overlapping(fires: Sequence[Fire], *, busy: bool) -> Iterator[Fire]:
    for fire in fires:
        if fire.cause is None and busy:
            reason = "overlap: earlier work of this schedule was in progress"
            yield replace(fire, cause=SkipCause.OVERLAP, reason=reason)
            continue
        busy = busy or fire.cause is None
        yield fire
