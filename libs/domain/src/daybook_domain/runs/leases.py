"""Leases of claimed runs: extend, release, refuse, and reap those that have expired."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.postgres_errors import is_lock_conflict, is_transaction_lost
from daybook_domain.row_errors import report_row_error
from daybook_domain.runs import queries, retries
from daybook_domain.runs.models import ReportRun, RunState
from daybook_domain.runs.requests import notify_schedulers

REAPER_ABSENCE = timedelta(seconds=10)
"""Time after the expiry of a lease from which on the reaper must have been prevented.

Schedulers reap every second, so the database was not available to them, and probably not to the
worker either.
"""

REAP_RETRY_DELAY = timedelta(seconds=5)
"""The delay after which the reaper tries again to reap a run that it could not reap."""


async def extend(
    session: AsyncSession, run_id: UUID, *, fence: int, until: datetime, progress: str | None = None
) -> bool:
    """Extend the lease of a running run; False when `fence` is not its current one."""
    values: dict[str, object] = {"lease_until": until}
    if progress is not None:
        values["progress"] = progress
    statement = (
        update(ReportRun)
        .where(
            col(ReportRun.id) == run_id,
            col(ReportRun.fence) == fence,
            col(ReportRun.state) == RunState.RUNNING,
        )
        .values(**values)
    )
    result = cast("CursorResult[Any]", await session.execute(statement))
    return result.rowcount > 0


async def release(session: AsyncSession, run_id: UUID, *, fence: int, now: datetime) -> None:
    """Return a running run to pending, so that another worker can claim it immediately.

    The attempt does not count: the worker shuts down, the run has not failed.
    """
    run = await queries.find_claimed_run_for_update(session, run_id, fence=fence)
    if run is not None:
        run.attempt -= 1
        await retries.return_to_pending(session, run, now=now, available_at=now)
        await notify_schedulers(session)


async def refuse(
    session: AsyncSession,
    run_id: UUID,
    *,
    fence: int,
    error_code: str,
    error_detail: str,
    now: datetime,
    delay: timedelta,
) -> None:
    """Return a running run that this worker must not build to pending, with the reason.

    The attempt does not count, so any number of refusals leaves the run to a worker that can build
    it. It is not claimed again before `delay` has passed.
    """
    run = await queries.find_claimed_run_for_update(session, run_id, fence=fence)
    if run is not None:
        run.attempt -= 1
        run.error_code, run.error_detail = error_code, error_detail[:2000]
        await retries.return_to_pending(session, run, now=now, available_at=now + delay)


async def reap(
    session: AsyncSession,
    *,
    now: datetime,
    limit: int,
    outage_limit: timedelta = retries.OUTAGE_LIMIT,
    on_reaped: Callable[[ReportRun], Awaitable[None]] | None = None,
) -> Sequence[ReportRun]:
    """Reap up to `limit` runs whose lease has expired, and return them.

    A queued run is dispatched again; a running one has used up an attempt, unless its lease
    expired more than `REAPER_ABSENCE` ago, which means an outage (see `retries`). Locked rows, such
    as that of a build about to commit, are skipped. The lease of a run that cannot be reaped now is
    extended by `REAP_RETRY_DELAY`, so that it does not block the runs behind it. `on_reaped` is
    called in the savepoint of each run: its writes are committed with the reaped run or not at all.
    """
    expired = (
        select(ReportRun)
        .where(
            col(ReportRun.state).in_((RunState.QUEUED, RunState.RUNNING)),
            col(ReportRun.lease_until) < now,
        )
        .order_by(col(ReportRun.lease_until))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    reaped = []
    for run in (await session.exec(expired)).all():
        run_id = run.id
        try:
            async with session.begin_nested():
                await _reap(session, run, now=now, outage_limit=outage_limit)
                if on_reaped is not None:
                    await on_reaped(run)
            reaped.append(run)
        except Exception as error:
            if is_transaction_lost(error):
                raise
            if not is_lock_conflict(error):
                report_row_error(f"run {run_id}", error)
            await session.refresh(run)
            run.lease_until = now + REAP_RETRY_DELAY
            await session.flush()
    return reaped


async def _reap(
    session: AsyncSession, run: ReportRun, *, now: datetime, outage_limit: timedelta
) -> None:
    if run.state == RunState.QUEUED:
        await retries.return_to_pending(session, run, now=now, available_at=now)
        return
    assert run.lease_until is not None
    await retries.end_attempt(
        session,
        run,
        is_outage=now - run.lease_until > REAPER_ABSENCE,
        outage_limit=outage_limit,
        error_code="lease_expired",
        error_detail=f"worker {run.worker} did not extend the lease in time",
        retryable=True,
        now=now,
        delay=timedelta(0),
    )
