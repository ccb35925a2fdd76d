"""Pauses of schedules whose run has failed (`pause_on_failure`)."""

from datetime import datetime

from sqlalchemy import func, update
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.runs.models import ReportRun, RunState
from daybook_domain.schedules.models import Schedule


async def pause_after_failure(session: AsyncSession, run: ReportRun, *, now: datetime) -> None:
    """Pause the schedules with `pause_on_failure` whose run, or a run that they joined, failed.

    Call it in the transaction that records the failure. Does nothing for a run that has not failed.
    """
    if run.state is not RunState.FAILED:
        return
    joined = select(ReportRun.schedule_id).where(ReportRun.joined_run_id == run.id)
    await session.execute(
        update(Schedule)
        .where(
            col(Schedule.pause_on_failure),
            col(Schedule.enabled),
            or_(col(Schedule.id) == run.schedule_id, col(Schedule.id).in_(joined)),
        )
        .values(
            enabled=False,
            # A fire that is due but not recorded yet will be skipped: it belongs to the pause.
            paused_at=func.least(now, Schedule.next_fire_at),
            note=f"paused automatically: run {run.id} of {run.report_date} failed",
            version=col(Schedule.version) + 1,
        )
        .execution_options(synchronize_session=False)
    )
