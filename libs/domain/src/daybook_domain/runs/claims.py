"""Claims of queued runs by workers.

A message is a ticket: the worker that receives one claims the most urgent queued run, which need
not be the run that the message names.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, false, func, true, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from daybook_domain.runs.errors import RunsLocked
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_domain.runs.requests import PRIORITY


async def claim_next(
    session: AsyncSession,
    run_id: UUID,
    *,
    worker: str,
    now: datetime,
    lease: timedelta,
    before: RunTrigger | None = None,
) -> ReportRun | None:
    """Claim the most urgent queued run and return it; None when there is nothing to claim.

    `run_id` is the run that the message names. A more urgent run is claimed in its place, so the
    order of messages in the queue does not matter; the message of the claimed run will claim one
    that is still queued. With `before`, only runs more urgent than that trigger are claimed. The
    new `fence` of the run is required to finish it.

    Does not wait for locks. Raises `RunsLocked` when every claimable run is locked, by another
    claim or by a scheduler that lost the race to dispatch it. In the second case there may be no
    other message for the run, so the caller must retry, in a new transaction.
    """
    is_named = col(ReportRun.id) == run_id
    priority_column = col(ReportRun.priority)
    # Without sorts Postgres reads the most urgent run first from the index, even when a burst of
    # fires was just dispatched and the statistics still show few queued runs.
    statement = select(priority_column, func.set_config("enable_sort", "off", True)).where(  # noqa: FBT003
        is_named
    )
    named = (await session.execute(statement)).one_or_none()
    if named is None:
        return None
    is_allowed = true() if before is None else priority_column < PRIORITY[before]
    for candidate in (
        _most_urgent(and_(priority_column < named[0], is_allowed)),
        select(ReportRun.id).where(is_named, is_allowed, _is_queued()),
        _most_urgent(is_allowed),
    ):
        claimed = await _claim(session, candidate, worker=worker, now=now, lease=lease)
        if claimed is not None:
            return claimed
    if await session.scalar(select(_queued(is_allowed).exists())):
        raise RunsLocked("every queued run is locked by another transaction")
    return None


def _queued(condition: ColumnElement[bool]) -> SelectOfScalar[UUID]:
    return select(ReportRun.id).where(ReportRun.state == RunState.QUEUED, condition)


def _most_urgent(condition: ColumnElement[bool]) -> SelectOfScalar[UUID]:
    in_order = _queued(condition).order_by(col(ReportRun.priority), col(ReportRun.queued_at))
    return in_order.limit(1)


async def _claim(
    session: AsyncSession,
    candidate: SelectOfScalar[UUID],
    *,
    worker: str,
    now: datetime,
    lease: timedelta,
) -> ReportRun | None:
    unlocked = candidate.with_for_update(skip_locked=True).scalar_subquery()
    statement = (
        update(ReportRun)
        .where(col(ReportRun.id) == unlocked, _is_queued())
        .values(
            state=RunState.RUNNING,
            fence=col(ReportRun.fence) + 1,
            attempt=col(ReportRun.attempt) + 1,
            lease_until=now + lease,
            started_at=now,
            worker=worker,
            progress="waiting for the date's lock",
        )
        .returning(ReportRun)
    )
    return (await session.scalars(statement)).one_or_none()


def _is_queued() -> ColumnElement[bool]:
    # A condition that no partial index matches: while the statistics do not include a burst of
    # runs, Postgres estimates these indexes as empty and scans a whole one instead of the key.
    return case((col(ReportRun.state) == RunState.QUEUED, true()), else_=false())
