"""Cancellation of runs, and of the fires that joined them."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.runs import queries
from daybook_domain.runs.errors import RunEnded
from daybook_domain.runs.fire_ledger import cancel_joined_fires
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
