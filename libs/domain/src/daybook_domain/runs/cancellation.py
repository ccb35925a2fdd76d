"""Cancellation of runs, and of the fires that joined them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.runs import queries, retries
from daybook_domain.runs.errors import RunEnded
from daybook_domain.runs.fire_ledger import cancel_joined_fires, list_abandoned_fires_for_update
from daybook_domain.runs.models import ReportRun, RunState


async def cancel(
    session: AsyncSession, run_id: UUID, *, now: datetime, reason: str | None = None
) -> ReportRun:
    """Cancel a run that has not ended, and the fires that joined it.

    A worker that is building it has an outdated fence then and cannot commit. Cancelling again
    changes nothing. Raises `RunEnded` if the run has ended otherwise.
    """
    run = await queries.get_run_for_update(session, run_id)
    if run.state is RunState.CANCELLED:
        return run
    if run.state not in queries.OPEN_STATES:
        raise RunEnded(f"Run {run.id} has already ended; its state is {run.state}.")
    run.state = RunState.CANCELLED
    run.reason = reason or "cancelled manually"
    run.lease_until = None
    run.finished_at = now
    run.progress = None
    run.fence += 1
    await session.flush()
    await cancel_joined_fires(session, now=now, within=timedelta(seconds=1))
    return run


async def restart_joined_fires(
    session: AsyncSession, *, now: datetime, within: timedelta, limit: int
) -> Sequence[ReportRun]:
    """Give fires a run of their own if the run that they joined was cancelled with its backfill.

    A cancelled backfill does not see a fire that joins its run in a transaction which has not been
    committed yet. So this is to be called periodically, with a longer `within` than the interval;
    it returns up to `limit` fires. If another run waits for the date, the fire joins that one. A
    fire that cannot be changed now, because a row is locked, is left to the next call.
    """
    restarted = []
    since = now - within
    for fire in await list_abandoned_fires_for_update(session, since=since, limit=limit):
        try:
            async with session.begin_nested():
                await retries.restart(session, fire, now=now)
            restarted.append(fire)
        except DBAPIError:
            await session.refresh(fire)
    return restarted
