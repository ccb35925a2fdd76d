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

from daybook_domain.reports import ledger
from daybook_domain.reports.calendar import local_date, shift
from daybook_domain.reports.ledger import Fire, Recorded
from daybook_domain.reports.models import NoWork
from daybook_domain.schedules import cron
from daybook_domain.schedules.models import Catchup, Overlap, Schedule

MISFIRE_GRACE = timedelta(minutes=1)
"""A fire picked up within this time of its due time is not late, whatever the policy."""

FIRES_OF_ONE = 100
"""How many fires of one schedule one transaction materialises; the rest follows in the next."""

FIRES_AT_ONCE = 5000
"""At about how many fires a transaction ends, of however many schedules."""

ALONE_AT_ONCE = 20
"""How many schedules are tried one by one, where together they failed."""


@dataclass(frozen=True)
class Fires:
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
    def of(cls, recorded: Recorded) -> "Fires":
        """Return what the ledger has taken."""
        return cls(
            runs=recorded[None],
            joined=recorded[NoWork.JOINED],
            overlapped=recorded[NoWork.OVERLAP],
            paused=recorded[NoWork.PAUSED],
            missed=recorded[NoWork.OUTSIDE_WINDOW] + recorded[NoWork.CATCHUP],
        )

    def __add__(self, other: "Fires") -> "Fires":
        return Fires(
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


async def materialise(session: AsyncSession, *, now: datetime, limit: int) -> Fires:
    """Turn the due fires of up to `limit` schedules into runs or ledger rows.

    Each schedule moves to its next due time in the same transaction. Schedules that another
    scheduler holds are passed over. An error is recorded on its schedule and stops no other.
    """
    healthy = await _due(session, now=now, limit=limit, broken=False)
    left = min(limit - len(healthy), ALONE_AT_ONCE)
    broken = await _due(session, now=now, limit=left, broken=True) if left else []
    total = await _materialise_together(session, healthy, now=now)
    return total + await _materialise_each(session, broken, now=now)


async def materialise_one(session: AsyncSession, schedule: Schedule, *, now: datetime) -> None:
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
) -> Fires:
    total, plans, fires = Fires(), list[_Plan](), 0
    for schedule in schedules:
        try:
            plan = _plan(schedule, now)
        except Exception as error:
            total += await _note(session, schedule, error)
            continue
        plans.append(plan)
        fires += len(plan.fires)
        if fires >= FIRES_AT_ONCE:
            break
    try:
        async with session.begin_nested():
            return total + await _record(session, plans, now=now)
    except DBAPIError:
        # One of them spoils it for all, and nothing tells which.
        alone = [plan.schedule for plan in plans[:ALONE_AT_ONCE]]
        return total + await _materialise_each(session, alone, now=now)


async def _materialise_each(
    session: AsyncSession, schedules: Sequence[Schedule], *, now: datetime
) -> Fires:
    total = Fires()
    for schedule in schedules:
        try:
            async with session.begin_nested():
                total += await _record(session, [_plan(schedule, now)], now=now)
        except Exception as error:
            await session.refresh(schedule)
            total += await _note(session, schedule, error)
    return total


async def _note(session: AsyncSession, schedule: Schedule, error: Exception) -> Fires:
    broken = () if schedule.error else (schedule.name,)
    schedule.error = f"{type(error).__name__}: {error}"[:500]
    await session.flush()
    return Fires(failed=1, broken=broken)


async def _record(session: AsyncSession, plans: Sequence[_Plan], *, now: datetime) -> Fires:
    if not plans:
        return Fires()
    fires = await without_overlap(session, [(plan.schedule, plan.fires) for plan in plans])
    recorded = await ledger.record(session, fires, now=now)
    await session.execute(
        _MOVE,
        {
            "ids": [_id(plan.schedule) for plan in plans],
            "lasts": [plan.last_at for plan in plans],
            "nexts": [plan.next_at for plan in plans],
        },
    )
    return Fires.of(recorded)


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
    for _ in range(FIRES_OF_ONE):
        if at is None or at > now:
            return
        following = cron.next_fire(schedule.cron, timezone=schedule.timezone, after=at)
        yield at, following
        at = following


def _decide(schedule: Schedule, at: datetime, following: datetime | None, now: datetime) -> Fire:
    fire = Fire(
        schedule_id=_id(schedule),
        scheduled_for=at,
        day=report_date(schedule, at),
        available_at=at + jitter(schedule, at, following),
    )
    if not schedule.enabled:
        reason = f"paused: {schedule.note}" if schedule.note else "paused"
        return replace(fire, cause=NoWork.PAUSED, reason=reason)
    return judge(schedule, fire, is_latest=following is None or following > now, now=now)


def judge(schedule: Schedule, fire: Fire, *, is_latest: bool, now: datetime) -> Fire:
    """Return `fire` with what catching up means for one that is found out at `now`."""
    late, window = now - fire.scheduled_for, schedule.catchup_window
    if late <= MISFIRE_GRACE:
        return fire
    if late > window:
        reason = f"missed: {late} late, outside the window of {window}"
        return replace(fire, cause=NoWork.OUTSIDE_WINDOW, reason=reason)
    if schedule.catchup == Catchup.NONE:
        reason = f"missed: {late} late, and catchup is none"
        return replace(fire, cause=NoWork.CATCHUP, reason=reason)
    if schedule.catchup == Catchup.LATEST and not is_latest:
        reason = "missed: catchup is latest, and a later fire was due"
        return replace(fire, cause=NoWork.CATCHUP, reason=reason)
    return fire


async def without_overlap(
    session: AsyncSession, due: Sequence[tuple[Schedule, Sequence[Fire]]]
) -> list[Fire]:
    """Return the fires, those without work that must not be added to what is still going."""
    careful = [_id(schedule) for schedule, _ in due if schedule.overlap is Overlap.SKIP]
    going = await ledger.going(session, careful)
    kept = list[Fire]()
    for schedule, fires in due:
        careless = schedule.overlap is not Overlap.SKIP
        kept += fires if careless else _one_at_most(fires, busy=schedule.id in going)
    return kept


def _one_at_most(fires: Sequence[Fire], *, busy: bool) -> Iterator[Fire]:
    for fire in fires:
        if fire.cause is None and busy:
            reason = "overlap: work of this schedule was still going"
            yield replace(fire, cause=NoWork.OVERLAP, reason=reason)
            continue
        busy = busy or fire.cause is None
        yield fire


def report_date(schedule: Schedule, at: datetime) -> date:
    """Return the date that a fire due `at` reports: of its nominal time, however late it runs."""
    return shift(
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
