"""Failed attempts and retries of runs.

pending ──dispatch──▶ queued ──claim──▶ running ──▶ succeeded   (by the build, with the rows)
   ▲                     │                 │  └───▶ failed      attempts used up
   ├──── reap: the lease expired, or an attempt failed (not counted: the database was unavailable)
   └──── retry ◀── failed, cancelled, skipped or missed             cancel ──▶ cancelled
"""

import random
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.runs import queries
from daybook_domain.runs.errors import RunNotEnded
from daybook_domain.runs.fire_ledger import joined_reason
from daybook_domain.runs.models import ReportRun, RunState, SkipCause
from daybook_domain.runs.requests import notify_schedulers

BACKOFF_BASE = timedelta(seconds=2)
BACKOFF_CAP = timedelta(minutes=5)

OUTAGE_LIMIT = timedelta(hours=24)
"""Default of the time in which attempts that end because of an outage are not counted."""

RETRYABLE_STATES = {RunState.FAILED, RunState.CANCELLED, RunState.MISSED, RunState.SKIPPED}
"""The states of a run that `retry` accepts."""


async def record_failure(
    session: AsyncSession,
    run_id: UUID,
    *,
    fence: int,
    error_code: str,
    error_detail: str,
    retryable: bool,
    now: datetime,
    is_outage: bool = False,
    outage_limit: timedelta = OUTAGE_LIMIT,
) -> ReportRun | None:
    """Record a failed attempt: pending again after a backoff, or failed without attempts left.

    An attempt that ended because the database was unavailable (`is_outage`) is not counted, for
    `outage_limit` since the first such attempt; later ones are. None when `fence` is not the
    current one of the run.
    """
    run = await queries.find_claimed_run_for_update(session, run_id, fence=fence)
    if run is None:
        return None
    await end_attempt(
        session,
        run,
        error_code=error_code,
        error_detail=error_detail,
        retryable=retryable,
        now=now,
        is_outage=is_outage,
        outage_limit=outage_limit,
    )
    return run


async def end_attempt(
    session: AsyncSession,
    run: ReportRun,
    *,
    error_code: str,
    error_detail: str,
    retryable: bool,
    now: datetime,
    is_outage: bool = False,
    outage_limit: timedelta = OUTAGE_LIMIT,
    delay: timedelta | None = None,
) -> None:
    """End the attempt of a locked running run as `record_failure` does.

    `delay` replaces the backoff.
    """
    run.error_code = error_code
    run.error_detail = error_detail[:2000]
    retry_delay = backoff(run.attempt) if delay is None else delay
    if is_outage:
        # Not later than `now`, which the clock may have been set back to.
        run.outage_since = min(run.outage_since or now, now)
        unavailable_for = now - run.outage_since
        if unavailable_for < outage_limit:
            run.attempt -= 1
        if delay is None:
            retry_delay = outage_backoff(unavailable_for)
    else:
        run.outage_since = None
    if retryable and run.attempt < run.max_attempts:
        await return_to_pending(session, run, now=now, available_at=now + retry_delay)
        return
    run.state = RunState.FAILED
    run.reason = "no attempts left" if retryable else "not retryable"
    run.lease_until = None
    run.finished_at = now
    run.progress = None
    # A worker that still has the old fence must not finish the run.
    run.fence += 1
    await session.flush()


async def retry(session: AsyncSession, run_id: UUID, *, now: datetime) -> ReportRun:
    """Return a run that ended without a report to pending, with all its attempts.

    If another run waits for its date, it joins that one. Raises `RunNotEnded` for a run that is
    in progress, has succeeded, or has joined another.
    """
    run = await queries.get_run_for_update(session, run_id)
    if run.cause is SkipCause.JOINED:
        raise RunNotEnded(f"Run {run.id} joined run {run.joined_run_id}; retry that one.")
    if run.state not in RETRYABLE_STATES:
        raise RunNotEnded(
            f"Run {run.id} is {run.state}; only a failed, cancelled, skipped or missed run can be"
            " retried. POST /report/runs rebuilds a day."
        )
    await restart(session, run, now=now)
    await notify_schedulers(session)
    return run


async def restart(session: AsyncSession, run: ReportRun, *, now: datetime) -> None:
    """Return a locked run that ended without a report to pending, with all its attempts."""
    run.cause = run.reason = run.joined_run_id = None
    run.finished_at = run.error_code = run.error_detail = run.outage_since = None
    run.attempt = 0
    await return_to_pending(session, run, now=now, available_at=now)


async def return_to_pending(
    session: AsyncSession, run: ReportRun, *, now: datetime, available_at: datetime
) -> None:
    """Return a locked run to pending; end it as joined when another run waits for its date."""
    run.lease_until = None
    run.queued_at = None
    run.progress = None
    # A worker that still has the old fence must not finish the run.
    run.fence += 1
    await session.flush()
    pending = (
        update(ReportRun)
        .where(col(ReportRun.id) == run.id)
        .values(state=RunState.PENDING, available_at=available_at)
        .execution_options(synchronize_session=False)
    )
    while True:
        try:
            async with session.begin_nested():
                await session.execute(pending)
            break
        except IntegrityError:
            # No lock is needed: the other run was requested after this one was claimed, so its
            # build includes the same orders.
            waiting = await queries.find_waiting_run(session, run.report_date)
            if waiting is not None:
                await _end_as_joined(session, run, waiting, now=now)
                return
            # The waiting run was claimed concurrently: try again.
    await session.refresh(run)


async def _end_as_joined(
    session: AsyncSession, run: ReportRun, waiting: ReportRun, *, now: datetime
) -> None:
    run.state = RunState.SKIPPED
    run.cause = SkipCause.JOINED
    run.joined_run_id = waiting.id
    run.reason = joined_reason(waiting.id, day=run.report_date)
    run.finished_at = now
    await session.flush()
    # Runs that joined it join the other too, so that each names the run that builds the report.
    await session.execute(
        update(ReportRun)
        .where(col(ReportRun.joined_run_id) == run.id, col(ReportRun.cause) == SkipCause.JOINED)
        .values(joined_run_id=waiting.id)
        .execution_options(synchronize_session=False)
    )


def backoff(attempt: int) -> timedelta:
    """Return the delay after failed attempt number `attempt`: doubling, capped, jittered by half.

    Source: "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), equal jitter.
    """
    # Twenty doublings are far beyond the cap; more would overflow.
    return _jitter(min(BACKOFF_BASE * (1 << max(0, min(attempt - 1, 20))), BACKOFF_CAP))


def outage_backoff(unavailable_for: timedelta) -> timedelta:
    """Return the delay after an attempt that is not counted: as long as the outage, capped.

    A delay that equals the time already passed doubles that time, so it grows like `backoff`.
    """
    return _jitter(min(max(unavailable_for, BACKOFF_BASE), BACKOFF_CAP))


def _jitter(full: timedelta) -> timedelta:
    return full / 2 + full / 2 * random.random()
