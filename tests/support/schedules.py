"""How does a test get a schedule, and let it come due?"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import update
from sqlmodel import col, select

from daybook_domain.schedules import materialization as materialising
from daybook_domain.schedules import provisioning, service
from daybook_domain.schedules.definitions import DAILY_NAME, ScheduleDefinition
from daybook_domain.schedules.materialization import MaterializationResult
from daybook_domain.schedules.models import Schedule
from daybook_platform.postgres.engine import Sessions

DAY = timedelta(days=1)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
EARLIER = MIDNIGHT - timedelta(hours=1)


async def define(
    sessions: Sessions, *, now: datetime = EARLIER, cron: str = "0 0 * * *", timezone: str = "UTC"
) -> Schedule:
    """Return the daily schedule, as the settings ask for it."""
    async with sessions.begin() as session:
        definition = ScheduleDefinition(name=DAILY_NAME, cron=cron, timezone=timezone)
        return await provisioning.define_from_settings(session, definition=definition, now=now)


async def add(
    sessions: Sessions, name: str = "added", *, now: datetime = EARLIER, **said: Any
) -> Schedule:
    """Return a schedule that somebody has made, at midnight in UTC unless it is said otherwise."""
    definition = ScheduleDefinition(name=name, **{"cron": "0 0 * * *", "timezone": "UTC", **said})
    async with sessions.begin() as session:
        return await service.create(session, definition=definition, now=now)


async def change(sessions: Sessions, name: str = DAILY_NAME, **values: object) -> None:
    """Change a schedule as nobody should."""
    async with sessions.begin() as session:
        await session.execute(update(Schedule).where(col(Schedule.name) == name).values(**values))


async def materialise(
    sessions: Sessions, *, now: datetime, limit: int = 10
) -> MaterializationResult:
    """Turn what is due into runs, as a scheduler does."""
    async with sessions.begin() as session:
        return await materialising.materialize(session, now=now, limit=limit)


async def find(sessions: Sessions, name: str = DAILY_NAME) -> Schedule:
    """Return a schedule as it is now."""
    async with sessions() as session:
        return (await session.exec(select(Schedule).where(Schedule.name == name))).one()
