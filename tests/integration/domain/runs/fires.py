"""Schedules and their fires, recorded in the ledger."""

from datetime import UTC, datetime

from daybook_domain.runs import fire_ledger
from daybook_domain.runs.fire_ledger import Fire, FireCounts
from daybook_domain.runs.models import ReportRun
from daybook_domain.schedules.models import Schedule, ScheduleOrigin
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import DAY, NOW, create_pending_run

FIRED_AT = datetime(2026, 3, 2, tzinfo=UTC)
"""The nominal time of the fire that reports `DAY`."""


async def add_schedule(sessions: Sessions, name: str = "daily") -> int:
    """Add a schedule and return its id."""
    row = Schedule(name=name, cron="0 0 * * *", timezone="UTC", origin=ScheduleOrigin.SETTINGS)
    async with sessions.begin() as session:
        session.add(row)
        await session.flush()
    assert row.id is not None
    return row.id


async def record_fires(sessions: Sessions, *fires: Fire) -> FireCounts:
    """Record fires and return the counts of those that were new."""
    async with sessions.begin() as session:
        return await fire_ledger.record(session, fires, now=NOW)


async def record_fire(sessions: Sessions, schedule_id: int, *, at: datetime = FIRED_AT) -> str:
    """Record one fire of `DAY`; return `run`, `recorded before` or the cause of its skip."""
    counts = await record_fires(sessions, Fire(schedule_id, at, DAY, at))
    (result,) = counts or ["recorded before"]
    return "run" if result is None else str(result)


async def add_joined_run(sessions: Sessions) -> ReportRun:
    """Return a pending run that a fire has joined."""
    run = await create_pending_run(sessions)
    assert await record_fire(sessions, await add_schedule(sessions)) == "joined"
    return run
