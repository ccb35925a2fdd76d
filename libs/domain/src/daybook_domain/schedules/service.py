"""What can be decided about schedules? Writes, inside the caller's transaction."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports import service as reports
from daybook_domain.reports.calendar import local_date, shift
from daybook_domain.reports.models import RunState
from daybook_domain.schedules import cron
from daybook_domain.schedules.models import Catchup, Schedule, ScheduleOrigin

DAILY = "daily"
"""The name of the schedule that comes from the settings."""

MISFIRE_GRACE = timedelta(minutes=1)
"""A fire picked up within this time of its due time is not late, whatever the policy."""

FIRES_AT_ONCE = 100
"""How many fires of one schedule one transaction materialises; the rest follows in the next."""


@dataclass(frozen=True)
class Fires:
    """What became of a batch of due fires."""

    runs: int = 0
    """Became work."""
    joined: int = 0
    """Joined work that was waiting."""
    missed: int = 0
    """Are in the ledger without work, by policy."""
    failed: int = 0
    """Schedules whose fires could not be recorded, and still are due."""
    broken: tuple[str, ...] = ()
    """The names of those among them that had not failed before."""

    def __add__(self, other: "Fires") -> "Fires":
        return Fires(
            runs=self.runs + other.runs,
            joined=self.joined + other.joined,
            missed=self.missed + other.missed,
            failed=self.failed + other.failed,
            broken=self.broken + other.broken,
        )

    @property
    def recorded(self) -> int:
        """How many fires went into the ledger."""
        return self.runs + self.joined + self.missed


async def define_from_settings(
    session: AsyncSession,
    *,
    name: str,
    expression: str,
    timezone: str,
    report_offset_days: int,
    now: datetime,
) -> Schedule:
    """Write a schedule that the settings ask for; the same settings again change nothing.

    Where cron, zone or offset have changed, what came due under the old ones is materialised
    first, so a change loses no fire and repeats none.
    """
    cron.validate(expression)
    await session.execute(
        insert(Schedule)
        .values(
            name=name,
            cron=expression,
            timezone=timezone,
            report_offset_days=report_offset_days,
            enabled=True,
            catchup=Catchup.ALL,
            catchup_window=timedelta(days=7),
            next_fire_at=cron.next_fire(expression, timezone=timezone, after=now),
            origin=ScheduleOrigin.SETTINGS,
        )
        .on_conflict_do_nothing()
    )
    locked = select(Schedule).where(Schedule.name == name).with_for_update()
    schedule = (await session.exec(locked.execution_options(populate_existing=True))).one()
    wanted = (expression, timezone, report_offset_days)
    if (schedule.cron, schedule.timezone, schedule.report_offset_days) != wanted:
        while schedule.enabled and _is_due(schedule, now):
            await _materialise_one(session, schedule, now=now)
        schedule.cron, schedule.timezone, schedule.report_offset_days = wanted
        # Another scheduler may have gone on to a later fire while this one waited for the lock.
        after = max(now, schedule.last_fire_at or now)
        schedule.next_fire_at = cron.next_fire(expression, timezone=timezone, after=after)
        schedule.error = None
        await session.flush()
    return schedule


async def materialise(session: AsyncSession, *, now: datetime, limit: int) -> Fires:
    """Turn the due fires of up to `limit` schedules into runs or ledger rows.

    Each schedule moves to its next due time in the same transaction. Schedules that another
    scheduler holds are passed over. An error is recorded on its schedule and stops no other.
    """
    due = (
        select(Schedule)
        .where(Schedule.enabled, col(Schedule.next_fire_at) <= now)
        # Those that failed last time come last, so that they hold up nobody.
        .order_by(col(Schedule.error).is_not(None), col(Schedule.next_fire_at))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    total = Fires()
    for schedule in (await session.exec(due)).all():
        try:
            async with session.begin_nested():
                total += await _materialise_one(session, schedule, now=now)
                schedule.error = None
        except Exception as error:
            await session.refresh(schedule)
            total += Fires(failed=1, broken=() if schedule.error else (schedule.name,))
            schedule.error = f"{type(error).__name__}: {error}"[:500]
        await session.flush()
    return total


async def _materialise_one(session: AsyncSession, schedule: Schedule, *, now: datetime) -> Fires:
    total = Fires()
    for fire in _due_fires(schedule, now):
        total += await _record(session, schedule, fire, now=now)
        schedule.last_fire_at = fire.at
        schedule.next_fire_at = fire.next_at
    await session.flush()
    return total


@dataclass(frozen=True)
class _Fire:
    at: datetime
    next_at: datetime | None
    is_latest: bool


def _is_due(schedule: Schedule, now: datetime) -> bool:
    return schedule.next_fire_at is not None and schedule.next_fire_at <= now


def _due_fires(schedule: Schedule, now: datetime) -> Iterator[_Fire]:
    """Yield what is due, oldest first; each next time counts from the nominal time before it."""
    at = schedule.next_fire_at
    if at is None:
        return
    following = cron.fires(schedule.cron, timezone=schedule.timezone, after=at)
    for _ in range(FIRES_AT_ONCE):
        if at is None or at > now:
            return
        next_at = next(following, None)
        yield _Fire(at=at, next_at=next_at, is_latest=next_at is None or next_at > now)
        at = next_at


async def _record(
    session: AsyncSession, schedule: Schedule, fire: _Fire, *, now: datetime
) -> Fires:
    assert schedule.id is not None
    day = report_date(schedule, fire.at)
    missed = _missed_because(schedule, fire, now)
    if missed is None:
        state = await reports.record_fire(
            session, schedule_id=schedule.id, scheduled_for=fire.at, day=day, now=now
        )
        return Fires(runs=state is RunState.PENDING, joined=state is RunState.SKIPPED)
    added = await reports.record_missed(
        session,
        schedule_id=schedule.id,
        scheduled_for=fire.at,
        day=day,
        reason=missed,
        now=now,
    )
    return Fires(missed=int(added))


def report_date(schedule: Schedule, at: datetime) -> date:
    """Return the date that a fire due `at` reports: of its nominal time, however late it runs."""
    return shift(
        local_date(at, timezone=schedule.timezone),
        days=schedule.report_offset_days,
        timezone=schedule.timezone,
    )


def _missed_because(schedule: Schedule, fire: _Fire, now: datetime) -> str | None:
    if now - fire.at <= MISFIRE_GRACE:
        return None
    if now - fire.at > schedule.catchup_window:
        return f"missed: {now - fire.at} late, outside the window of {schedule.catchup_window}"
    if schedule.catchup == Catchup.NONE:
        return f"missed: {now - fire.at} late, and catchup is none"
    if schedule.catchup == Catchup.LATEST and not fire.is_latest:
        return "missed: catchup is latest, and a later fire was due"
    return None
