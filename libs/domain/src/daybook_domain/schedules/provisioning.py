"""Schedules that are provisioned from the settings and from TaskIQ's schedule source."""

from datetime import datetime, timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.schedules import date_continuity, definition_writes, queries
from daybook_domain.schedules.definitions import ScheduleDefinition
from daybook_domain.schedules.models import Schedule, ScheduleOrigin


async def define_from_settings(
    session: AsyncSession, *, definition: ScheduleDefinition, now: datetime
) -> Schedule:
    """Create or update the schedule that the settings define; equal settings change nothing.

    A change continues with the date that would have been reported next. Raises `Invalid`.
    """
    definition.validate()
    await definition_writes.insert_if_absent(
        session, definition, origin=ScheduleOrigin.SETTINGS, now=now
    )
    schedule = await queries.get_schedule_for_update(
        session, await queries.get_schedule_id(session, definition.name)
    )
    if ScheduleDefinition.of(schedule) != definition:
        await date_continuity.redefine_without_gap(session, schedule, definition, now=now)
    return schedule


async def define_from_taskiq(
    session: AsyncSession,
    *,
    definition: ScheduleDefinition,
    at: datetime | None,
    schedule_id: int | None,
    now: datetime,
) -> Schedule:
    """Create the schedule of a TaskIQ entry, or update the one with `schedule_id`.

    `at` is the instant of a schedule that fires once; it also fires if that instant has passed.
    Raises `ScheduleNameTaken`.
    """
    since = now if at is None else min(now, at - timedelta(seconds=1))
    schedule = None
    if schedule_id is not None:
        schedule = await queries.find_schedule_for_update(session, schedule_id)
    if schedule is None:
        return await definition_writes.insert(
            session, definition, origin=ScheduleOrigin.TASKIQ, now=since
        )
    if ScheduleDefinition.of(schedule) != definition:
        await definition_writes.redefine(session, schedule, definition, now=now)
        if at is not None:
            schedule.defined_at, schedule.next_fire_at = since, at
            await session.flush()
    return schedule
