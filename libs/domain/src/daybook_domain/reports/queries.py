"""What can be asked about reports? Reads; decides nothing."""

from collections.abc import Collection, Sequence
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports.errors import DayNotFound, RunNotFound
from daybook_domain.reports.models import ReportDay, ReportRun, RunState, RunTrigger

WAITING = (RunState.PENDING, RunState.QUEUED)
"""The states of a run that later requests for its date join."""

OPEN = (*WAITING, RunState.RUNNING)
"""The states in which a run can still change its day."""


async def get_run(session: AsyncSession, run_id: UUID) -> ReportRun:
    """Return a run, or raise `RunNotFound`."""
    run = await session.get(ReportRun, run_id)
    if run is None:
        raise RunNotFound(f"There is no run {run_id}; GET /report/runs lists the latest.")
    return run


async def find_waiting_run(session: AsyncSession, day: date) -> ReportRun | None:
    """Return the one run of `day` that is pending or queued, if there is one."""
    statement = select(ReportRun).where(
        ReportRun.report_date == day, col(ReportRun.state).in_(WAITING)
    )
    return (await session.exec(statement)).one_or_none()


_WAITING_RUNS = text(
    "SELECT report_date, id FROM report_runs"
    " WHERE state IN ('pending', 'queued') AND report_date = ANY (CAST(:days AS date[]))"
)


async def waiting_runs(session: AsyncSession, days: Collection[date]) -> dict[date, UUID]:
    """Return, for each of `days` that has one, the id of the run that is pending or queued."""
    found = await session.execute(_WAITING_RUNS, {"days": list(days)})
    return {row.report_date: row.id for row in found}


async def runs(
    session: AsyncSession,
    *,
    day: date | None = None,
    states: Sequence[RunState] = (),
    trigger: RunTrigger | None = None,
    before: tuple[datetime, UUID] | None = None,
    limit: int,
) -> Sequence[ReportRun]:
    """Return runs, newest first; `before` is the `(created_at, id)` of the last one seen."""
    statement = select(ReportRun)
    if day is not None:
        statement = statement.where(ReportRun.report_date == day)
    if states:
        statement = statement.where(col(ReportRun.state).in_(states))
    if trigger is not None:
        statement = statement.where(ReportRun.trigger == trigger)
    if before is not None:
        key = tuple_(col(ReportRun.created_at), col(ReportRun.id))
        statement = statement.where(key < before)
    statement = statement.order_by(
        col(ReportRun.created_at).desc(), col(ReportRun.id).desc()
    ).limit(limit)
    return (await session.exec(statement)).all()


async def get_day(session: AsyncSession, day: date) -> ReportDay:
    """Return what is known about the report of `day`, or raise `DayNotFound` if it is absent."""
    found = await session.get(ReportDay, day)
    if found is None:
        raise DayNotFound(f"There is no report of {day}; POST /report/runs builds one.")
    return found


async def days(session: AsyncSession, *, first: date, last: date) -> Sequence[ReportDay]:
    """Return the lines about the built days from `first` to `last`, both included, by date."""
    statement = (
        select(ReportDay)
        .where(ReportDay.report_date >= first, ReportDay.report_date <= last)
        .order_by(col(ReportDay.report_date))
    )
    return (await session.exec(statement)).all()
