"""Catch-up of the fires that were skipped while a schedule was paused."""

from datetime import datetime

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.runs import fire_ledger, requests
from daybook_domain.runs.fire_ledger import Fire
from daybook_domain.runs.models import ReportRun, SkipCause
from daybook_domain.schedules.catchup import apply_catchup_policy
from daybook_domain.schedules.definitions import MAX_CATCHUP_WINDOW
from daybook_domain.schedules.models import Schedule
from daybook_domain.schedules.overlap import apply_overlap_policy


async def catch_up(session: AsyncSession, schedule: Schedule, *, now: datetime) -> None:
    """Apply the policies again to the fires skipped since the pause started, as if found late now.

    Fires that the policies skip keep their ledger row: they were skipped, not missed.
    """
    skipped = select(ReportRun).where(
        ReportRun.schedule_id == schedule.id,
        ReportRun.cause == SkipCause.PAUSED,
        col(ReportRun.scheduled_for) >= schedule.paused_at,
        col(ReportRun.scheduled_for) >= now - min(schedule.catchup_window, MAX_CATCHUP_WINDOW),
    )
    # Locked, because a concurrent retry turns a skipped fire into a pending run.
    locked = skipped.order_by(col(ReportRun.scheduled_for)).with_for_update()
    runs = (await session.exec(locked)).all()
    planned = [
        apply_catchup_policy(schedule, _to_fire(run), is_latest=run is runs[-1], now=now)
        for run in runs
    ]
    fires = [fire for fire in planned if fire.cause is None]
    fires = [f for f in await apply_overlap_policy(session, [(schedule, fires)]) if f.cause is None]
    await session.execute(
        _DELETE_SKIPPED, {"id": schedule.id, "instants": [fire.scheduled_for for fire in fires]}
    )
    await fire_ledger.record(session, fires, now=now)
    await requests.notify_schedulers(session)


_DELETE_SKIPPED = text(
    "DELETE FROM report_runs WHERE schedule_id = :id"
    " AND scheduled_for = ANY (CAST(:instants AS timestamptz[]))"
)


def _to_fire(run: ReportRun) -> Fire:
    assert run.schedule_id is not None
    assert run.scheduled_for is not None
    return Fire(run.schedule_id, run.scheduled_for, run.report_date, run.available_at)
