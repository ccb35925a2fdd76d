"""Writes of schedule definitions that lose and repeat no fire.

Due fires are recorded under the old definition before it changes.
"""

from dataclasses import asdict
from datetime import datetime, timedelta

from sqlalchemy.dialects.postgresql import insert as sql_insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.schedules import queries
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.definitions import (
    DAILY_NAME,
    MAX_CATCHUP_WINDOW,
    ScheduleDefinition,
)
from daybook_domain.schedules.errors import ScheduleNameTaken
from daybook_domain.schedules.materialization import materialize_one
from daybook_domain.schedules.models import Schedule, ScheduleOrigin


async def insert(
    session: AsyncSession, definition: ScheduleDefinition, *, origin: ScheduleOrigin, now: datetime
) -> Schedule:
    """Add a schedule that fires after `now`. Raises `ScheduleNameTaken`, also for `daily`."""
    added = None
    if definition.name != DAILY_NAME:
        added = await insert_if_absent(session, definition, origin=origin, now=now)
    if added is None:
        raise name_taken(definition.name)
    return await queries.get_schedule(session, added)


async def insert_if_absent(
    session: AsyncSession, definition: ScheduleDefinition, *, origin: ScheduleOrigin, now: datetime
) -> int | None:
    """Add a schedule that fires after `now`; return its id, or None if the name is taken."""
    statement = (
        sql_insert(Schedule)
        .values(
            **asdict(definition),
            enabled=True,
            defined_at=now,
            next_fire_at=due_times.next_fire(
                definition.cron, timezone=definition.timezone, after=now
            ),
            origin=origin,
        )
        .on_conflict_do_nothing()
        .returning(col(Schedule.id))
    )
    return (await session.scalars(statement)).one_or_none()


async def redefine(
    session: AsyncSession, schedule: Schedule, definition: ScheduleDefinition, *, now: datetime
) -> None:
    """Replace the definition of a schedule that the caller has locked, from the next fire on."""
    before = ScheduleDefinition.of(schedule).firing_key
    await materialize_one(session, schedule, now=now)
    for name, value in asdict(definition).items():
        setattr(schedule, name, value)
    if definition.firing_key != before:
        # Another scheduler may have recorded a later fire while this transaction waited for the
        # lock, and the clock may have gone back: recorded fires must not become due again.
        since = _get_start(schedule, now=now)
        after = max(since, schedule.last_fire_at or since, schedule.defined_at or since)
        schedule.defined_at = after
        schedule.next_fire_at = due_times.next_fire(
            definition.cron, timezone=definition.timezone, after=after
        )
        schedule.error = None
    await save_new_version(session, schedule)


def _get_start(schedule: Schedule, *, now: datetime) -> datetime:
    """Return the instant after which a new definition applies: `now`, unless fires are still due.

    They could not be recorded under a definition that is broken, so the new one makes up for them,
    as far as the longest catch-up window reaches.
    """
    due = schedule.next_fire_at
    if due is None or due > now:
        return now
    return max(due, now - MAX_CATCHUP_WINDOW) - timedelta(microseconds=1)


async def save_new_version(session: AsyncSession, schedule: Schedule) -> Schedule:
    """Flush the changes of a schedule with an incremented version; return it refreshed."""
    schedule.version += 1
    await session.flush()
    await session.refresh(schedule)
    return schedule


def name_taken(name: str) -> ScheduleNameTaken:
    """Return the error for a name that another schedule has, or that is reserved."""
    return ScheduleNameTaken(f"A schedule named {name} already exists.")
