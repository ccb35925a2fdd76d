"""What has come due, and what becomes of it? Writes, inside the caller's transaction.

A thousand schedules that are due take as many statements as one: what becomes of each fire is
decided here, and the decisions are written down together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from hashlib import blake2b

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports.business_day import local_date, shift_date
from daybook_domain.runs import fire_ledger
from daybook_domain.runs.fire_ledger import Fire, FireCounts
from daybook_domain.runs.models import SkipCause
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.models import Catchup, Schedule
from daybook_domain.schedules.overlap import apply_overlap_policy

MISFIRE_GRACE = timedelta(minutes=1)
"""A fire picked up within this time of its due time is not late, whatever the policy."""

MAX_FIRES_PER_SCHEDULE = 100
"""How many fires of one schedule one transaction materialises; the rest follows in the next."""

MAX_FIRES_PER_BATCH = 5000
"""At about how many fires a transaction ends, of however many schedules."""

MAX_SINGLE_SCHEDULES = 20
"""How many schedules are tried one by one, where together they failed."""


@dataclass(frozen=True)
class MaterializationResult:
    """What became of a batch of due fires."""

    runs: int = 0
    """Became work."""
    joined: int = 0
    """Joined work that was waiting."""
    overlapped: int = 0
    """Are in the ledger without work, for the work before was still going."""
    paused: int = 0
    """Are in the ledger without work, for their schedule was paused."""
    missed: int = 0
    """Are in the ledger without work, by policy."""
    failed: int = 0
    """Schedules whose fires could not be recorded, and still are due."""
    broken: tuple[str, ...] = ()
    """The names of those among them that had not failed before."""

    @classmethod
    def of(cls, recorded: FireCounts) -> "MaterializationResult":
        """Return what the ledger has taken."""
        return cls(
            runs=recorded[None],
            joined=recorded[SkipCause.JOINED],
            overlapped=recorded[SkipCause.OVERLAP],
            paused=recorded[SkipCause.PAUSED],
            missed=recorded[SkipCause.OUTSIDE_WINDOW] + recorded[SkipCause.CATCHUP],
        )

    def __add__(self, other: "MaterializationResult") -> "MaterializationResult":
        return MaterializationResult(
            runs=self.runs + other.runs,
            joined=self.joined + other.joined,
            overlapped=self.overlapped + other.overlapped,
            paused=self.paused + other.paused,
            missed=self.missed + other.missed,
            failed=self.failed + other.failed,
            broken=self.broken + other.broken,
        )

    @property
    def recorded(self) -> int:
        """How many fires went into the ledger."""
        return self.runs + self.joined + self.overlapped + self.paused + self.missed


@dataclass(frozen=True)
class _Plan:
    """What becomes of the due fires of one schedule, and when it fires next."""

    schedule: Schedule
    fires: Sequence[Fire]
    last_at: datetime
    next_at: datetime | None


async def materialize(session: AsyncSession, *, now: datetime, limit: int) -> MaterializationResult:
    """Turn the due fires of up to `limit` schedules into runs or ledger rows.

    Each schedule moves to its next due time in the same transaction. Schedules that another
    scheduler holds are passed over. An error is recorded on its schedule and stops no other.
    """
    healthy = await _due(session, now=now, limit=limit, broken=False)
    left = min(limit - len(healthy), MAX_SINGLE_SCHEDULES)
    broken = await _due(session, now=now, limit=left, broken=True) if left else []
    total = await _materialise_together(session, healthy, now=now)
    return total + await _materialise_each(session, broken, now=now)


async def materialize_one(session: AsyncSession, schedule: Schedule, *, now: datetime) -> None:
    """Record all that is due of a schedule that the caller has locked."""
    while schedule.next_fire_at is not None and schedule.next_fire_at <= now:
        await _record(session, [_plan(schedule, now)], now=now)
        await session.refresh(schedule)


async def _due(
    session: AsyncSession, *, now: datetime, limit: int, broken: bool
) -> Sequence[Schedule]:
    error = col(Schedule.error)
    due = (
        select(Schedule)
        .where(
            col(Schedule.next_fire_at) <= now,
            col(Schedule.deleted_at).is_(None),
            error.is_not(None) if broken else error.is_(None),
        )
        .order_by(col(Schedule.next_fire_at))
        .limit(limit)
        # Without their keys, which runs that come back to waiting share: those are not to wait.
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(due)).all()


async def _materialise_together(
    session: AsyncSession, schedules: Sequence[Schedule], *, now: datetime
) -> MaterializationResult:
    total, plans, fires = MaterializationResult(), list[_Plan](), 0
    for schedule in schedules:
        try:
            plan = _plan(schedule, now)
        except Exception as error:
            total += await _note(session, schedule, error)
            continue
        plans.append(plan)
        fires += len(plan.fires)
        if fires >= MAX_FIRES_PER_BATCH:
            break
    try:
        async with session.begin_nested():
            return total + await _record(session, plans, now=now)
    except DBAPIError:
        # One of them spoils it for all, and nothing tells which.
        alone = [plan.schedule for plan in plans[:MAX_SINGLE_SCHEDULES]]
        return total + await _materialise_each(session, alone, now=now)


async def _materialise_each(
    session: AsyncSession, schedules: Sequence[Schedule], *, now: datetime
) -> MaterializationResult:
    total = MaterializationResult()
    for schedule in schedules:
        try:
            async with session.begin_nested():
                total += await _record(session, [_plan(schedule, now)], now=now)
        except Exception as error:
            await session.refresh(schedule)
            total += await _note(session, schedule, error)
    return total


async def _note(
    session: AsyncSession, schedule: Schedule, error: Exception
) -> MaterializationResult:
    broken = () if schedule.error else (schedule.name,)
    schedule.error = f"{type(error).__name__}: {error}"[:500]
    await session.flush()
    return MaterializationResult(failed=1, broken=broken)


async def _record(
    session: AsyncSession, plans: Sequence[_Plan], *, now: datetime
) -> MaterializationResult:
    if not plans:
        return MaterializationResult()
    fires = await apply_overlap_policy(session, [(plan.schedule, plan.fires) for plan in plans])
    recorded = await fire_ledger.record(session, fires, now=now)
    await session.execute(
        _MOVE,
        {
            "ids": [_id(plan.schedule) for plan in plans],
            "lasts": [plan.last_at for plan in plans],
            "nexts": [plan.next_at for plan in plans],
        },
    )
    return MaterializationResult.of(recorded)


# Textual, so that `updated_at` goes on telling when somebody changed the schedule.
_MOVE = text(
    """
    UPDATE schedules SET next_fire_at = moved.next_at, last_fire_at = moved.last_at, error = NULL
    FROM unnest(
        CAST(:ids AS bigint[]), CAST(:lasts AS timestamptz[]), CAST(:nexts AS timestamptz[])
    ) AS moved(id, last_at, next_at)
    WHERE schedules.id = moved.id
    """
)


def _plan(schedule: Schedule, now: datetime) -> _Plan:
    assert schedule.next_fire_at is not None
    fires, last_at = list[Fire](), schedule.next_fire_at
    next_at: datetime | None = last_at
    for at, following in _due_times(schedule, now):
        fires.append(_decide(schedule, at, following, now))
        last_at, next_at = at, following
    return _Plan(schedule, fires, last_at, next_at)


def _due_times(schedule: Schedule, now: datetime) -> Iterator[tuple[datetime, datetime | None]]:
    """Yield what is due and the time after it, oldest first, each counted from the one before."""
    at = schedule.next_fire_at
    for _ in range(MAX_FIRES_PER_SCHEDULE):
        if at is None or at > now:
            return
        following = due_times.next_fire(schedule.cron, timezone=schedule.timezone, after=at)
        yield at, following
        at = following


def _decide(schedule: Schedule, at: datetime, following: datetime | None, now: datetime) -> Fire:
    fire = Fire(
        schedule_id=_id(schedule),
        scheduled_for=at,
        day=get_report_date(schedule, at),
        available_at=at + jitter(schedule, at, following),
    )
    if not schedule.enabled:
        reason = f"paused: {schedule.note}" if schedule.note else "paused"
        return replace(fire, cause=SkipCause.PAUSED, reason=reason)
    return apply_catchup_policy(
        schedule, fire, is_latest=following is None or following > now, now=now
    )


def apply_catchup_policy(schedule: Schedule, fire: Fire, *, is_latest: bool, now: datetime) -> Fire:
    """Return `fire` with what catching up means for one that is found out at `now`."""
    late, window = now - fire.scheduled_for, schedule.catchup_window
    if late <= MISFIRE_GRACE:
        return fire
    if late > window:
        reason = f"missed: {late} late, outside the window of {window}"
        return replace(fire, cause=SkipCause.OUTSIDE_WINDOW, reason=reason)
    if schedule.catchup == Catchup.NONE:
        reason = f"missed: {late} late, and catchup is none"
        return replace(fire, cause=SkipCause.CATCHUP, reason=reason)
    if schedule.catchup == Catchup.LATEST and not is_latest:
        reason = "missed: catchup is latest, and a later fire was due"
        return replace(fire, cause=SkipCause.CATCHUP, reason=reason)
    return fire


def get_report_date(schedule: Schedule, at: datetime) -> date:
    """Return the date that a fire due `at` reports: of its nominal time, however late it runs."""
    return shift_date(
        local_date(at, timezone=schedule.timezone),
        days=schedule.report_offset_days,
        timezone=schedule.timezone,
    )


def jitter(schedule: Schedule, at: datetime, following: datetime | None) -> timedelta:
    """Return how long after `at` work begins: the same whoever asks, and before the next fire."""
    span = schedule.jitter if following is None else min(schedule.jitter, following - at)
    if not span:
        return span
    seed = f"{schedule.id} {at.isoformat()}".encode()
    fraction = int.from_bytes(blake2b(seed, digest_size=4).digest()) / 2**32
    return timedelta(seconds=int(span.total_seconds() * fraction))


def _id(schedule: Schedule) -> int:
    assert schedule.id is not None
    return schedule.id
