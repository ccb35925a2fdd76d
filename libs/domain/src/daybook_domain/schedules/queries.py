"""What can be asked about schedules and their fires? Reads; decides nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, func
from sqlalchemy.orm import aliased
from sqlmodel import and_, col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.runs.models import ReportRun, RunState, SkipCause
from daybook_domain.schedules.errors import ScheduleNotFound
from daybook_domain.schedules.models import Schedule, TaskiqEntry


class FireOutcome(StrEnum):
    """What became of a fire; the shorter `skipped` and `missed` stand for all of theirs."""

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
        """Return the outcome of a fire that is in the ledger."""
        return cls(f"{run.state}: {run.cause}" if run.cause else run.state.value)


@dataclass(frozen=True)
class LedgerFire:
    """One due time of a schedule, and how the run that it joined does, where it joined one."""

    run: ReportRun
    joined_run_state: RunState | None

    @property
    def outcome(self) -> FireOutcome:
        """What became of it."""
        return FireOutcome.of(self.run)


async def get_next_due_at(session: AsyncSession, *, after: datetime) -> datetime | None:
    """Return when, later than `after`, the next schedule is due."""
    statement = select(func.min(Schedule.next_fire_at)).where(
        col(Schedule.next_fire_at) > after,
        col(Schedule.deleted_at).is_(None),
        col(Schedule.error).is_(None),
    )
    return (await session.exec(statement)).one()


async def find_schedule(
    session: AsyncSession, schedule_id: int, *, lock: bool = False
) -> Schedule | None:
    """Return a schedule, locked for the caller on request; None when there is none (any more)."""
    statement = select(Schedule).where(
        Schedule.id == schedule_id, col(Schedule.deleted_at).is_(None)
    )
    if lock:
        locking = statement.with_for_update(key_share=True)
        statement = locking.execution_options(populate_existing=True)
    return (await session.exec(statement)).one_or_none()


async def get_schedule(session: AsyncSession, schedule_id: int, *, lock: bool = False) -> Schedule:
    """Return a schedule, locked for the caller on request, or raise `ScheduleNotFound`."""
    found = await find_schedule(session, schedule_id, lock=lock)
    if found is None:
        raise ScheduleNotFound(f"There is no schedule {schedule_id}; GET /schedules lists all.")
    return found


async def get_schedule_id(session: AsyncSession, name: str) -> int:
    """Return the id of the schedule of that name, or raise `ScheduleNotFound`."""
    statement = select(Schedule.id).where(Schedule.name == name, col(Schedule.deleted_at).is_(None))
    found = (await session.exec(statement)).one_or_none()
    if found is None:
        raise ScheduleNotFound(f"There is no schedule named {name}.")
    return found


async def list_schedules(
    session: AsyncSession, *, enabled: bool | None = None, after: int = 0, limit: int
) -> Sequence[Schedule]:
    """Return schedules by id, those after `after`."""
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
    """Return the fires of a schedule due from `first` on and before `before`, newest first."""
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
        statement = statement.where(or_(*(_has(outcome) for outcome in outcomes)))
    rows = await session.exec(statement.order_by(due.desc()).limit(limit))
    return [
        LedgerFire(run, None if state is None else RunState(state)) for run, state in rows.all()
    ]


def _has(outcome: FireOutcome) -> ColumnElement[bool]:
    state, _, cause = outcome.partition(": ")
    in_state = col(ReportRun.state) == RunState(state)
    return and_(in_state, col(ReportRun.cause) == SkipCause(cause)) if cause else in_state


async def list_taskiq_entries(
    session: AsyncSession, *, broken: bool | None = None, after: str = "", limit: int
) -> Sequence[TaskiqEntry]:
    """Return what TaskIQ's source in Redis has, by id, those after `after`."""
    statement = select(TaskiqEntry).where(col(TaskiqEntry.id) > after)
    if broken is not None:
        problem = col(TaskiqEntry.problem)
        statement = statement.where(problem.is_not(None) if broken else problem.is_(None))
    return (await session.exec(statement.order_by(col(TaskiqEntry.id)).limit(limit))).all()
