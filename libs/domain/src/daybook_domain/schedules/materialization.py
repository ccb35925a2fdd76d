"""Materialization of due fires as runs and ledger rows, in the caller's transaction.

Fires are planned one schedule at a time and recorded together: a thousand due schedules take as
many statements as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.postgres_errors import is_outage, is_transaction_lost
from daybook_domain.runs import fire_ledger
from daybook_domain.runs.fire_ledger import FireCounts
from daybook_domain.runs.models import SkipCause
from daybook_domain.schedules.fire_planning import FirePlan, plan_fires
from daybook_domain.schedules.models import Schedule
from daybook_domain.schedules.overlap import apply_overlap_policy

MAX_FIRES_PER_BATCH = 5000
"""Fires after which a transaction adds no further schedule."""

MAX_SINGLE_SCHEDULES = 20
"""Maximum schedules that one transaction records individually, after recording together failed."""


@dataclass(frozen=True)
class MaterializationResult:
    """Counts of a batch of due fires, by what they became."""

    runs: int = 0
    """Fires that became a run."""
    joined: int = 0
    """Fires that joined a pending run."""
    overlapped: int = 0
    """Fires that were skipped, because earlier work was still active."""
    paused: int = 0
    """Fires that were skipped, because their schedule was paused."""
    missed: int = 0
    """Fires that the catch-up policy skipped."""
    failed: int = 0
    """Schedules whose fires could not be recorded, and are still due."""
    broken: tuple[str, ...] = ()
    """The names of the failed schedules whose previous attempt had not failed."""

    @classmethod
    def of(cls, recorded: FireCounts) -> "MaterializationResult":
        """Return the result for the counts of recorded fires."""
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
        """The number of fires that were added to the ledger."""
        return self.runs + self.joined + self.overlapped + self.paused + self.missed


async def materialize(session: AsyncSession, *, now: datetime, limit: int) -> MaterializationResult:
    """Turn the due fires of up to `limit` schedules into runs or ledger rows.

    Each schedule advances to its next due time in the same transaction. Schedules that another
    scheduler has locked are skipped. An error is recorded on its schedule and affects no other.
    """
    healthy = await _list_due_for_update(session, now=now, limit=limit, broken=False)
    broken: Sequence[Schedule] = ()
    if remaining := min(limit - len(healthy), MAX_SINGLE_SCHEDULES):
        broken = await _list_due_for_update(session, now=now, limit=remaining, broken=True)
    total = await _materialize_together(session, healthy, now=now)
    return total + await _materialize_individually(session, broken, now=now)


async def materialize_one(session: AsyncSession, schedule: Schedule, *, now: datetime) -> None:
    """Record all due fires of a schedule that the caller has locked.

    An error is recorded on the schedule, whose other fires stay due: it must not prevent the
    correction, pause or removal of a schedule that cannot fire. Raises errors of Postgres that a
    retry of the transaction may avoid.
    """
    while schedule.next_fire_at is not None and schedule.next_fire_at <= now:
        try:
            async with session.begin_nested():
                await _record(session, [plan_fires(schedule, now=now)], now=now)
        except Exception as error:
            if is_outage(error):
                raise
            await session.refresh(schedule)
            await _record_error(session, schedule, error)
            return
        await session.refresh(schedule)


async def _list_due_for_update(
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
        # NO KEY UPDATE, so that it does not block runs that return to pending: their foreign key
        # takes a key share lock.
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(due)).all()


async def _materialize_together(
    session: AsyncSession, schedules: Sequence[Schedule], *, now: datetime
) -> MaterializationResult:
    total, plans, fires = MaterializationResult(), list[FirePlan](), 0
    for schedule in schedules:
        try:
            plan = plan_fires(schedule, now=now)
        except Exception as error:
            total += await _record_error(session, schedule, error)
            continue
        plans.append(plan)
        fires += len(plan.fires)
        if fires >= MAX_FIRES_PER_BATCH:
            break
    try:
        async with session.begin_nested():
            return total + await _record(session, plans, now=now)
    except Exception as error:
        if is_transaction_lost(error):
            raise
        # One schedule fails the statement for all, and the error does not identify it.
        retried = [plan.schedule for plan in plans[:MAX_SINGLE_SCHEDULES]]
        return total + await _materialize_individually(session, retried, now=now)


async def _materialize_individually(
    session: AsyncSession, schedules: Sequence[Schedule], *, now: datetime
) -> MaterializationResult:
    total = MaterializationResult()
    for schedule in schedules:
        try:
            async with session.begin_nested():
                total += await _record(session, [plan_fires(schedule, now=now)], now=now)
        except Exception as error:
            if is_transaction_lost(error):
                raise
            await session.refresh(schedule)
            total += await _record_error(session, schedule, error)
    return total


async def _record_error(
    session: AsyncSession, schedule: Schedule, error: Exception
) -> MaterializationResult:
    broken = () if schedule.error else (schedule.name,)
    schedule.error = f"{type(error).__name__}: {error}"[:500]
    await session.flush()
    return MaterializationResult(failed=1, broken=broken)


async def _record(
    session: AsyncSession, plans: Sequence[FirePlan], *, now: datetime
) -> MaterializationResult:
    if not plans:
        return MaterializationResult()
    fires = await apply_overlap_policy(session, [(plan.schedule, plan.fires) for plan in plans])
    recorded = await fire_ledger.record(session, fires, now=now)
    await session.execute(
        _ADVANCE,
        {
            "ids": [plan.schedule.id for plan in plans],
            "lasts": [plan.last_at for plan in plans],
            "nexts": [plan.next_at for plan in plans],
        },
    )
    return MaterializationResult.of(recorded)


# Textual SQL, because an ORM update would set `updated_at`, which is when a user changed it.
_ADVANCE = text(
    """
    UPDATE schedules SET
        next_fire_at = advanced.next_at, last_fire_at = advanced.last_at, error = NULL
    FROM unnest(
        CAST(:ids AS bigint[]), CAST(:lasts AS timestamptz[]), CAST(:nexts AS timestamptz[])
    ) AS advanced(id, last_at, next_at)
    WHERE schedules.id = advanced.id
    """
)
