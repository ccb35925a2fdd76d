"""Operations on runs, each in a transaction of its own."""

from datetime import datetime, timedelta

from sqlalchemy import text

from daybook_domain.runs import claims, leases, retries
from daybook_domain.runs.dispatch_queue import DispatchItem
from daybook_domain.runs.models import ReportRun
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import LEASE, NOW, claim_due_runs

SECOND = timedelta(seconds=1)
AFTER_LEASE = NOW + LEASE + SECOND
"""An instant at which leases that were taken at `NOW` have expired."""

OUTAGE_LIMIT = timedelta(hours=6)
"""The time in which attempts that end because of an outage are not counted."""

SHORT_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '50ms'")


async def claim(
    sessions: Sessions, run: ReportRun | DispatchItem, *, worker: str = "w1"
) -> ReportRun | None:
    """Claim the next run with the message of `run`."""
    async with sessions.begin() as session:
        return await claims.claim_next(session, run.id, worker=worker, now=NOW, lease=LEASE)


async def reap(sessions: Sessions, *, now: datetime = AFTER_LEASE) -> list[ReportRun]:
    """Reap the runs whose lease has expired at `now`."""
    async with sessions.begin() as session:
        return list(await leases.reap(session, now=now, limit=10))


async def release(sessions: Sessions, run: ReportRun) -> None:
    """Release a claimed run, as a worker that shuts down does."""
    async with sessions.begin() as session:
        await leases.release(session, run.id, fence=run.fence, now=NOW)


async def fail(
    sessions: Sessions,
    run: ReportRun,
    *,
    retryable: bool = True,
    is_outage: bool = False,
    now: datetime = NOW,
) -> ReportRun | None:
    """Record that the attempt of a claimed run failed."""
    async with sessions.begin() as session:
        return await retries.record_failure(
            session,
            run.id,
            fence=run.fence,
            error_code="broken",
            error_detail="x" * 3000,
            retryable=retryable,
            now=now,
            is_outage=is_outage,
            outage_limit=OUTAGE_LIMIT,
        )


async def attempt(
    sessions: Sessions, run: ReportRun, *, now: datetime, is_outage: bool = False
) -> ReportRun:
    """Dispatch and claim a pending run, and record that its attempt failed."""
    async with sessions.begin() as session:
        await claim_due_runs(session, now=now, lease=LEASE, limit=1)
    async with sessions.begin() as session:
        claimed = await claims.claim_next(session, run.id, worker="w1", now=now, lease=LEASE)
    assert claimed is not None
    failed = await fail(sessions, claimed, is_outage=is_outage, now=now)
    assert failed is not None
    return failed
