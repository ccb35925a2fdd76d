"""Queries of report runs."""

from collections.abc import Collection, Sequence
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.runs.errors import RunNotFound
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger

WAITING_STATES = (RunState.PENDING, RunState.QUEUED)
"""The states of a run that later requests for its date join."""

OPEN_STATES = (*WAITING_STATES, RunState.RUNNING)
"""The states of a run that has not finished."""


async def get_run(session: AsyncSession, run_id: UUID) -> ReportRun:
    """Return a run, or raise `RunNotFound`."""
    run = await session.get(ReportRun, run_id)
    if run is None:
        raise _not_found(run_id)
    return run


async def get_run_for_update(session: AsyncSession, run_id: UUID) -> ReportRun:
    """Return a run, locked until the transaction ends, or raise `RunNotFound`."""
    statement = select(ReportRun).where(ReportRun.id == run_id).with_for_update()
    found = await session.exec(statement.execution_options(populate_existing=True))
    run = found.one_or_none()
    if run is None:
        raise _not_found(run_id)
    return run


async def find_claimed_run_for_update(
    session: AsyncSession, run_id: UUID, *, fence: int
) -> ReportRun | None:
    """Return a running run, locked; None when `fence` is not its current one."""
    statement = (
        select(ReportRun)
        .where(
            ReportRun.id == run_id, ReportRun.fence == fence, ReportRun.state == RunState.RUNNING
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


async def find_waiting_run(session: AsyncSession, day: date) -> ReportRun | None:
    """Return the one run of `day` that is pending or queued, or None."""
    statement = select(ReportRun).where(
        ReportRun.report_date == day, col(ReportRun.state).in_(WAITING_STATES)
    )
    return (await session.exec(statement)).one_or_none()


_WAITING_RUNS = text(
    "SELECT report_date, id FROM report_runs"
    " WHERE state IN ('pending', 'queued') AND report_date = ANY (CAST(:days AS date[]))"
)


async def list_waiting_runs(session: AsyncSession, days: Collection[date]) -> dict[date, UUID]:
    """Return the ids of the runs of `days` that are pending or queued, by date."""
    found = await session.execute(_WAITING_RUNS, {"days": list(days)})
    return {row.report_date: row.id for row in found}


async def list_runs(
    session: AsyncSession,
    *,
    day: date | None = None,
    states: Sequence[RunState] = (),
    trigger: RunTrigger | None = None,
    before: tuple[datetime, UUID] | None = None,
    limit: int,
) -> Sequence[ReportRun]:
    """Return runs, newest first; `before` is the `(created_at, id)` of the last one of a page."""
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


def _not_found(run_id: UUID) -> RunNotFound:
    return RunNotFound(f"Run {run_id} does not exist; GET /report/runs lists the latest runs.")
