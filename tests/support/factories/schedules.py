"""Factories of schedules, edits as users make them, and the outcomes of fires."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import update
from sqlmodel import col, select

from daybook_domain.schedules import materialization, provisioning, queries, service
from daybook_domain.schedules.definitions import DAILY_NAME, ScheduleDefinition
from daybook_domain.schedules.materialization import MaterializationResult
from daybook_domain.schedules.models import Schedule
from daybook_domain.schedules.service import ResumeMode
from daybook_platform.postgres.sessions import Sessions

DAY = timedelta(days=1)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
EARLIER = MIDNIGHT - timedelta(hours=1)


async def define_daily_schedule(
    sessions: Sessions, *, now: datetime = EARLIER, cron: str = "0 0 * * *", timezone: str = "UTC"
) -> Schedule:
    """Return the daily schedule, defined from settings."""
    async with sessions.begin() as session:
        definition = ScheduleDefinition(name=DAILY_NAME, cron=cron, timezone=timezone)
        return await provisioning.define_from_settings(session, definition=definition, now=now)


async def create_schedule(
    sessions: Sessions, name: str = "added", *, now: datetime = EARLIER, **fields: Any
) -> Schedule:
    """Return a schedule created by a user, due at midnight UTC unless `fields` says otherwise."""
    definition = ScheduleDefinition(name=name, **{"cron": "0 0 * * *", "timezone": "UTC", **fields})
    async with sessions.begin() as session:
        return await service.create(session, definition=definition, now=now)


async def update_schedule_row(sessions: Sessions, name: str = DAILY_NAME, **values: object) -> None:
    """Update columns of a schedule directly, without the rules of the service."""
    async with sessions.begin() as session:
        await session.execute(update(Schedule).where(col(Schedule.name) == name).values(**values))


async def materialize_due_fires(
    sessions: Sessions, *, now: datetime, limit: int = 10
) -> MaterializationResult:
    """Turn due fires into runs, as a scheduler does."""
    async with sessions.begin() as session:
        return await materialization.materialize(session, now=now, limit=limit)


async def get_schedule(sessions: Sessions, name: str = DAILY_NAME) -> Schedule:
    """Return the current state of a schedule."""
    async with sessions() as session:
        return (await session.exec(select(Schedule).where(Schedule.name == name))).one()


def get_schedule_id(schedule: Schedule) -> int:
    """Return the id of a stored schedule."""
    assert schedule.id is not None
    return schedule.id


async def edit_schedule(
    sessions: Sessions,
    schedule: Schedule,
    *,
    now: datetime = EARLIER,
    versions: frozenset[int] | None = None,
    **changes: Any,
) -> Schedule:
    """Change the definition of a schedule."""
    async with sessions.begin() as session:
        return await service.change(
            session, get_schedule_id(schedule), changes=changes, versions=versions, now=now
        )


async def pause_schedule(
    sessions: Sessions, schedule: Schedule, *, now: datetime = EARLIER
) -> Schedule:
    """Pause a schedule with the note `freeze`."""
    async with sessions.begin() as session:
        return await service.pause(session, get_schedule_id(schedule), note="freeze", now=now)


async def resume_schedule(
    sessions: Sessions, schedule: Schedule, *, mode: ResumeMode, now: datetime
) -> Schedule:
    """Resume a schedule."""
    async with sessions.begin() as session:
        return await service.resume(session, get_schedule_id(schedule), mode=mode, now=now)


async def remove_schedule(
    sessions: Sessions, schedule: Schedule, *, versions: frozenset[int] | None = None
) -> None:
    """Remove a schedule at midnight."""
    async with sessions.begin() as session:
        await service.remove(session, get_schedule_id(schedule), versions=versions, now=MIDNIGHT)


async def list_fire_outcomes(sessions: Sessions, schedule: Schedule) -> list[str]:
    """Return the outcomes of the fires of a schedule, oldest first."""
    async with sessions() as session:
        fires = await queries.list_fires(session, get_schedule_id(schedule), limit=100)
    return [fire.outcome.value for fire in reversed(fires)]
