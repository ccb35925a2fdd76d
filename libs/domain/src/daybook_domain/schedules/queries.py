"""Queries of schedules and their fires."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, func
from sqlalchemy.orm import aliased
from sqlmodel import and_, col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from daybook_domain.runs.models import ReportRun, RunState, SkipCause
from daybook_domain.schedules.errors import ScheduleNotFound
from daybook_domain.schedules.models import Schedule, TaskiqEntry


class FireOutcome(StrEnum):
    """The outcome of a fire; `skipped` and `missed` include all of their causes."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    SKIPPED_JOINED = "skipped: joined"
    SKIPPED_OVERLAP = "skipped: overlap"
    SKIPPED_PAUSED = "skipped: paused"
    MISSED = "missed"
    MISSED_OUTSIDE_WINDOW = "missed: outside window"
    MISSED_CATCHUP = "missed: catchup"

    @classmethod
    def of(cls, run: ReportRun) -> "FireOutcome":
        """Return the outcome of a recorded fire."""
        return cls(f"{run.state}: {run.cause}" if run.cause else run.state.value)


@dataclass(frozen=True)
class LedgerFire:
    """A fire in the ledger, and the state of the run that it joined, if any."""

    run: ReportRun
    joined_run_state: RunState | None

    @property
    def outcome(self) -> FireOutcome:
        """The outcome of the fire."""
        return FireOutcome.of(self.run)


async def get_next_due_at(session: AsyncSession, *, after: datetime) -> datetime | None:
    """Return the earliest due time after `after` of all schedules without an error, or None."""
    statement = select(func.min(Schedule.next_fire_at)).where(
        col(Schedule.next_fire_at) > after,
        col(Schedule.deleted_at).is_(None),
        col(Schedule.error).is_(None),
    )
    return (await session.exec(statement)).one()


async def get_schedule(session: AsyncSession, schedule_id: int) -> Schedule:
    """Return a schedule. Raises `ScheduleNotFound`."""
    found = (await session.exec(_by_id(schedule_id))).one_or_none()
    if found is None:
        raise _not_found(schedule_id)
    return found


async def get_schedule_for_update(session: AsyncSession, schedule_id: int) -> Schedule:
    """Lock and return a schedule. Raises `ScheduleNotFound`."""
    found = await find_schedule_for_update(session, schedule_id)
    if found is None:
        raise _not_found(schedule_id)
    return found


async def find_schedule_for_update(session: AsyncSession, schedule_id: int) -> Schedule | None:
    """Lock and return a schedule, or None if it does not exist or was removed."""
    statement = (
        _by_id(schedule_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


def _by_id(schedule_id: int) -> SelectOfScalar[Schedule]:
    return select(Schedule).where(Schedule.id == schedule_id, col(Schedule.deleted_at).is_(None))


def _not_found(schedule_id: int) -> ScheduleNotFound:
    return ScheduleNotFound(
        f"Schedule {schedule_id} does not exist; GET /schedules lists all schedules."
    )


async def get_schedule_id(session: AsyncSession, name: str) -> int:
    """Return the id of the schedule with that name. Raises `ScheduleNotFound`."""
    statement = select(Schedule.id).where(Schedule.name == name, col(Schedule.deleted_at).is_(None))
    found = (await session.exec(statement)).one_or_none()
    if found is None:
        raise ScheduleNotFound(f"A schedule named {name} does not exist.")
    return found


async def list_schedules(
    session: AsyncSession, *, enabled: bool | None = None, after: int = 0, limit: int
) -> Sequence[Schedule]:
    """Return up to `limit` schedules with an id above `after`, by id."""
    statement = select(Schedule).where(col(Schedule.id) > after, col(Schedule.deleted_at).is_(None))
    if enabled is not None:
        statement = statement.where(Schedule.enabled == enabled)
    return (await session.exec(statement.order_by(col(Schedule.id)).limit(limit))).all()


async def list_fires(
    session: AsyncSession,
    schedule_id: int,
    *,
    first: datetime | None = None,
    before: datetime | None = None,
    outcomes: Sequence[FireOutcome] = (),
    limit: int,
) -> Sequence[LedgerFire]:
    """Return the fires of a schedule due in `[first, before)` (None: unbounded), newest first."""
    work = aliased(ReportRun)
    due = col(ReportRun.scheduled_for)
    statement = (
        select(ReportRun, work.state)
        .outerjoin(work, col(work.id) == col(ReportRun.joined_run_id))
        .where(ReportRun.schedule_id == schedule_id, due.is_not(None))
    )
    if first is not None:
        statement = statement.where(due >= first)
    if before is not None:
        statement = statement.where(due < before)
    if outcomes:
        statement = statement.where(or_(*(_has_outcome(outcome) for outcome in outcomes)))
    rows = await session.exec(statement.order_by(due.desc()).limit(limit))
    return [
        LedgerFire(run, None if state is None else RunState(state)) for run, state in rows.all()
    ]


def _has_outcome(outcome: FireOutcome) -> ColumnElement[bool]:
    state, _, cause = outcome.partition(": ")
    in_state = col(ReportRun.state) == RunState(state)
    return and_(in_state, col(ReportRun.cause) == SkipCause(cause)) if cause else in_state


async def list_taskiq_entries(
    session: AsyncSession, *, broken: bool | None = None, after: str = "", limit: int
) -> Sequence[TaskiqEntry]:
    """Return up to `limit` entries of TaskIQ's source with an id above `after`, by id."""
    statement = select(TaskiqEntry).where(col(TaskiqEntry.id) > after)
    if broken is not None:
        problem = col(TaskiqEntry.problem)
        statement = statement.where(problem.is_not(None) if broken else problem.is_(None))
    return (await session.exec(statement.order_by(col(TaskiqEntry.id)).limit(limit))).all()
