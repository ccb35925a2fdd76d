"""Decisions of users about schedules, in the caller's transaction.

Each records the fires that are due first, so a change loses no fire and repeats none.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports.business_day import business_day
from daybook_domain.runs import requests
from daybook_domain.runs.models import RunTrigger
from daybook_domain.schedules import definition_writes, pause_catchup, queries
from daybook_domain.schedules.definitions import DAILY_NAME, ScheduleDefinition
from daybook_domain.schedules.errors import (
    ScheduleCannotFire,
    ScheduleChanged,
    ScheduleFromSettings,
    ScheduleFromTaskiq,
)
from daybook_domain.schedules.fire_planning import find_report_date
from daybook_domain.schedules.materialization import materialize_one
from daybook_domain.schedules.models import Schedule, ScheduleOrigin


class ResumeMode(StrEnum):
    """How a resumed schedule treats the fires of its pause."""

    CATCHUP = "catchup"
    """The catch-up policy decides about them, as about late fires."""
    FROM_NOW = "from_now"
    """They stay skipped."""


async def create(
    session: AsyncSession, *, definition: ScheduleDefinition, now: datetime
) -> Schedule:
    """Add a schedule that fires after `now`. Raises `Invalid`, `ScheduleNameTaken`."""
    definition.validate()
    return await definition_writes.insert(session, definition, origin=ScheduleOrigin.API, now=now)


async def change(
    session: AsyncSession,
    schedule_id: int,
    *,
    changes: Mapping[str, Any],
    versions: Collection[int] | None,
    now: datetime,
) -> Schedule:
    """Change the definition of a schedule, from the next fire on.

    Raises `ScheduleChanged` if its version is not in `versions` (None: any version),
    `ScheduleFromSettings`, `ScheduleFromTaskiq`, `Invalid` and `ScheduleNameTaken`.
    """
    schedule = await _get_editable_for_update(session, schedule_id, versions=versions)
    if schedule.origin is ScheduleOrigin.TASKIQ:
        raise ScheduleFromTaskiq(
            f"Schedule {schedule.name} comes from TaskIQ's source in Redis; change it there. It can"
            " be paused, resumed, triggered and removed."
        )
    before = ScheduleDefinition.of(schedule)
    after = replace(before, **changes)
    after.validate()
    if after.name == DAILY_NAME:
        raise definition_writes.name_taken(DAILY_NAME)
    if after != before:
        try:
            async with session.begin_nested():
                await definition_writes.redefine(session, schedule, after, now=now)
        except IntegrityError as error:
            raise definition_writes.name_taken(after.name) from error
    return schedule


async def remove(
    session: AsyncSession, schedule_id: int, *, versions: Collection[int] | None, now: datetime
) -> None:
    """Remove a schedule; its fires stay in the ledger.

    Raises `ScheduleChanged` and `ScheduleFromSettings`, as `change` does.
    """
    schedule = await _get_editable_for_update(session, schedule_id, versions=versions)
    await materialize_one(session, schedule, now=now)
    schedule.deleted_at = now
    schedule.next_fire_at = None
    await definition_writes.save_new_version(session, schedule)


async def pause(
    session: AsyncSession, schedule_id: int, *, note: str | None, now: datetime
) -> Schedule:
    """Pause a schedule: its fires from now on are recorded as skipped.

    A schedule that is already paused keeps its note unless `note` is given.
    """
    schedule = await queries.get_schedule_for_update(session, schedule_id)
    if not schedule.enabled and note in (None, schedule.note):
        return schedule
    await materialize_one(session, schedule, now=now)
    if note is not None:
        schedule.note = note
    if schedule.enabled:
        schedule.enabled = False
        schedule.paused_at = now
    return await definition_writes.save_new_version(session, schedule)


async def resume(
    session: AsyncSession, schedule_id: int, *, mode: ResumeMode, now: datetime
) -> Schedule:
    """Resume a paused schedule; one that is not paused stays as it is."""
    schedule = await queries.get_schedule_for_update(session, schedule_id)
    if schedule.enabled:
        return schedule
    await materialize_one(session, schedule, now=now)
    if mode is ResumeMode.CATCHUP:
        await pause_catchup.catch_up(session, schedule, now=now)
    schedule.enabled = True
    schedule.paused_at = schedule.note = None
    return await definition_writes.save_new_version(session, schedule)


async def trigger(
    session: AsyncSession, schedule_id: int, *, timezone: str, now: datetime
) -> requests.RequestedRun:
    """Request the report that a fire at `now` would build, even if the schedule is paused.

    This is not a fire: the due times of the schedule stay the same. `timezone` is the time zone of
    business days. Raises `ScheduleCannotFire`.
    """
    schedule = await queries.get_schedule(session, schedule_id)
    day = find_report_date(schedule, now)
    if day is None:
        raise ScheduleCannotFire(
            f"Schedule {schedule.name} cannot fire: in {schedule.timezone} with an offset of"
            f" {schedule.report_offset_days} days it has no date to report. Correct its definition."
        )
    return await requests.request(
        session,
        day=business_day(day, timezone=timezone),
        trigger=RunTrigger.MANUAL,
        now=now,
        reason=f"schedule {schedule.name} was triggered manually",
        schedule_id=schedule.id,
    )


async def _get_editable_for_update(
    session: AsyncSession, schedule_id: int, *, versions: Collection[int] | None
) -> Schedule:
    schedule = await queries.get_schedule_for_update(session, schedule_id)
    if versions is not None and schedule.version not in versions:
        raise ScheduleChanged(
            f"Schedule {schedule.name} has changed since it was read; read it again, and decide"
            " whether the change still makes sense."
        )
    if schedule.origin is ScheduleOrigin.SETTINGS:
        raise ScheduleFromSettings(
            f"Schedule {schedule.name} comes from the settings of the scheduler: set"
            " DAYBOOK_DAILY_CRON and DAYBOOK_TIMEZONE there. It can be paused, resumed and"
            " triggered."
        )
    return schedule
