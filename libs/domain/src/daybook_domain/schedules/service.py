"""What can be decided about schedules? Writes, inside the caller's transaction.

Every decision begins with writing down what has come due before it, so a change loses no fire and
repeats none.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports.business_day import business_day
from daybook_domain.runs import fire_ledger, requests
from daybook_domain.runs.fire_ledger import Fire
from daybook_domain.runs.models import ReportRun, RunTrigger, SkipCause
from daybook_domain.schedules import queries
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.definitions import ScheduleDefinition
from daybook_domain.schedules.errors import (
    InvalidCron,
    ScheduleChanged,
    ScheduleFromSettings,
    ScheduleFromTaskiq,
    ScheduleNameTaken,
    ScheduleNotPaused,
)
from daybook_domain.schedules.materialization import (
    apply_catchup_policy,
    get_report_date,
    materialize_one,
)
from daybook_domain.schedules.models import Schedule, ScheduleOrigin
from daybook_domain.schedules.overlap import apply_overlap_policy

DAILY_NAME = "daily"
"""The name of the schedule that comes from the settings."""


class ResumeMode(StrEnum):
    """What becomes of the fires that were due while a schedule was paused?"""

    CATCHUP = "catchup"
    """They are made up for, as the schedule's policy says of fires that were missed."""
    FROM_NOW = "from_now"
    """They stay skipped."""


async def define_from_settings(
    session: AsyncSession, *, definition: ScheduleDefinition, now: datetime
) -> Schedule:
    """Write a schedule that the settings ask for; the same settings again change nothing."""
    definition.check()
    await _insert(session, definition, origin=ScheduleOrigin.SETTINGS, now=now)
    schedule = await queries.get_schedule(
        session, await queries.get_schedule_id(session, definition.name), lock=True
    )
    if ScheduleDefinition.of(schedule) != definition:
        await _redefine(session, schedule, definition, now=now)
    return schedule


async def define_from_taskiq(
    session: AsyncSession,
    *,
    definition: ScheduleDefinition,
    at: datetime | None,
    known: int | None,
    now: datetime,
) -> Schedule:
    """Write a schedule that a caller of TaskIQ asks for: `known`, or another. Raises `NameTaken`.

    One that fires once, `at` an instant, does so also when that has passed: it was not known of.
    """
    since = now if at is None else min(now, at - timedelta(seconds=1))
    schedule = await queries.find_schedule(session, known, lock=True) if known is not None else None
    if schedule is None:
        origin, taken = ScheduleOrigin.TASKIQ, definition.name == DAILY_NAME
        added = None if taken else await _insert(session, definition, origin=origin, now=since)
        if added is None:
            raise _taken(definition.name)
        return await queries.get_schedule(session, added)
    if ScheduleDefinition.of(schedule) != definition:
        await _redefine(session, schedule, definition, now=now)
        if at is not None:
            schedule.defined_at, schedule.next_fire_at = since, at
            await session.flush()
    return schedule


async def create(
    session: AsyncSession, *, definition: ScheduleDefinition, now: datetime
) -> Schedule:
    """Add a schedule that fires from now on. Raises `Invalid`, `NameTaken`."""
    definition.check()
    added = None
    if definition.name != DAILY_NAME:
        added = await _insert(session, definition, origin=ScheduleOrigin.API, now=now)
    if added is None:
        raise _taken(definition.name)
    return await queries.get_schedule(session, added)


async def change(
    session: AsyncSession,
    schedule_id: int,
    *,
    changes: Mapping[str, Any],
    versions: Collection[int] | None,
    now: datetime,
) -> Schedule:
    """Change what is said of a schedule, from the next fire on.

    Raises `ScheduleChanged` when it is at none of `versions` any more (None: whichever),
    `FromSettings`, `Invalid` and `NameTaken`.
    """
    schedule = await _lock_to_edit(session, schedule_id, versions=versions)
    if schedule.origin is ScheduleOrigin.TASKIQ:
        raise ScheduleFromTaskiq(
            f"Schedule {schedule.name} comes from TaskIQ's source in Redis; change it there. It can"
            " be paused, resumed, triggered and removed."
        )
    before = ScheduleDefinition.of(schedule)
    after = replace(before, **changes)
    after.check()
    if after.name == DAILY_NAME:
        raise _taken(DAILY_NAME)
    if after != before:
        try:
            async with session.begin_nested():
                await _redefine(session, schedule, after, now=now)
        except IntegrityError as error:
            raise _taken(after.name) from error
    return schedule


async def remove(
    session: AsyncSession, schedule_id: int, *, versions: Collection[int] | None, now: datetime
) -> None:
    """Let a schedule fire no more; the ledger keeps what it has done. Raises as `change` does."""
    schedule = await _lock_to_edit(session, schedule_id, versions=versions)
    await materialize_one(session, schedule, now=now)
    schedule.deleted_at = now
    schedule.next_fire_at = None
    await _changed(session, schedule)


async def pause(
    session: AsyncSession, schedule_id: int, *, note: str | None, now: datetime
) -> Schedule:
    """Let the fires of a schedule from now on become no work; each is in the ledger all the same.

    One that is paused already keeps its note, unless there is a new one.
    """
    schedule = await queries.get_schedule(session, schedule_id, lock=True)
    await materialize_one(session, schedule, now=now)
    if note is not None:
        schedule.note = note
    if schedule.enabled:
        schedule.enabled = False
        schedule.paused_at = now
    return await _changed(session, schedule)


async def resume(
    session: AsyncSession, schedule_id: int, *, mode: ResumeMode, now: datetime
) -> Schedule:
    """Let a paused schedule do work again. Raises `NotPaused`."""
    schedule = await queries.get_schedule(session, schedule_id, lock=True)
    if schedule.enabled:
        raise ScheduleNotPaused(f"Schedule {schedule.name} is not paused.")
    await materialize_one(session, schedule, now=now)
    if mode is ResumeMode.CATCHUP:
        await _catch_up(session, schedule, now=now)
    schedule.enabled = True
    schedule.paused_at = schedule.note = None
    return await _changed(session, schedule)


async def trigger(
    session: AsyncSession, schedule_id: int, *, timezone: str, now: datetime
) -> requests.RequestedRun:
    """Ask for the report that a fire at this moment would be about, paused or not.

    It is no fire: the schedule's next one comes as if nothing had been asked for. `timezone` is
    that of business days.
    """
    schedule = await queries.get_schedule(session, schedule_id)
    return await requests.request(
        session,
        day=business_day(get_report_date(schedule, now), timezone=timezone),
        trigger=RunTrigger.MANUAL,
        now=now,
        reason=f"schedule {schedule.name} was triggered by hand",
        schedule_id=schedule.id,
    )


async def _insert(
    session: AsyncSession, definition: ScheduleDefinition, *, origin: ScheduleOrigin, now: datetime
) -> int | None:
    statement = (
        insert(Schedule)
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


async def _redefine(
    session: AsyncSession, schedule: Schedule, definition: ScheduleDefinition, *, now: datetime
) -> None:
    before = ScheduleDefinition.of(schedule).firing_key
    # What a broken definition meant cannot be told, and so it must not keep it from being mended.
    with suppress(InvalidCron, ZoneInfoNotFoundError):
        await materialize_one(session, schedule, now=now)
    for name, value in asdict(definition).items():
        setattr(schedule, name, value)
    if definition.firing_key != before:
        # Another scheduler may have gone on to a later fire while this one waited for the lock, and
        # a clock may have been put back: what has been decided on is never gone back to.
        after = max(now, schedule.last_fire_at or now, schedule.defined_at or now)
        schedule.defined_at = after
        schedule.next_fire_at = due_times.next_fire(
            definition.cron, timezone=definition.timezone, after=after
        )
        schedule.error = None
    await _changed(session, schedule)


async def _catch_up(session: AsyncSession, schedule: Schedule, *, now: datetime) -> None:
    """Judge again what was skipped since the pause began, as if it were found out only now."""
    skipped = select(ReportRun).where(
        ReportRun.schedule_id == schedule.id,
        ReportRun.cause == SkipCause.PAUSED,
        col(ReportRun.scheduled_for) >= schedule.paused_at,
        col(ReportRun.scheduled_for) >= now - schedule.catchup_window,
    )
    # Locked: one that somebody retries just now is work already.
    locked = skipped.order_by(col(ReportRun.scheduled_for)).with_for_update()
    runs = (await session.exec(locked)).all()
    judged = [
        apply_catchup_policy(schedule, _fire_again(run), is_latest=run is runs[-1], now=now)
        for run in runs
    ]
    # What by policy is not made up for stays as it is: it was skipped, not missed.
    fires = [fire for fire in judged if fire.cause is None]
    fires = [f for f in await apply_overlap_policy(session, [(schedule, fires)]) if f.cause is None]
    await session.execute(
        _FORGET, {"id": schedule.id, "instants": [fire.scheduled_for for fire in fires]}
    )
    await fire_ledger.record(session, fires, now=now)
    await requests.notify_schedulers(session)


_FORGET = text(
    "DELETE FROM report_runs WHERE schedule_id = :id"
    " AND scheduled_for = ANY (CAST(:instants AS timestamptz[]))"
)


def _fire_again(run: ReportRun) -> Fire:
    assert run.schedule_id is not None
    assert run.scheduled_for is not None
    return Fire(run.schedule_id, run.scheduled_for, run.report_date, run.available_at)


async def _lock_to_edit(
    session: AsyncSession, schedule_id: int, *, versions: Collection[int] | None
) -> Schedule:
    schedule = await queries.get_schedule(session, schedule_id, lock=True)
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


def _taken(name: str) -> ScheduleNameTaken:
    return ScheduleNameTaken(f"There is a schedule named {name} already.")


async def _changed(session: AsyncSession, schedule: Schedule) -> Schedule:
    schedule.version += 1
    await session.flush()
    await session.refresh(schedule)
    return schedule
