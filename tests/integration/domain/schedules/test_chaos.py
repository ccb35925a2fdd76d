"""Random histories of schedules and schedulers: no fire is lost or doubled.

The clock is simulated, the database is real. At the end the ledger has each due time of each
definition that a schedule has had exactly once, and the audit finds no problem.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise, takewhile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col, select

from daybook_domain.runs import cancellation, claims, leases, retries
from daybook_domain.runs.models import ReportRun
from daybook_domain.schedules import queries, service
from daybook_domain.schedules.audit import find_problems
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.failure_pauses import pause_after_failure
from daybook_domain.schedules.materialization import materialize
from daybook_domain.schedules.models import Catchup, Overlap, Schedule
from daybook_domain.schedules.service import ResumeMode
from daybook_platform.postgres.engine import create_engine, create_sessions
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import claim_due_runs
from tests.support.factories.schedules import create_schedule

START = datetime(2026, 3, 27, 12, tzinfo=UTC)
"""Two days before the clocks in Berlin go forward."""

LEASE = timedelta(minutes=5)
CRONS = ["0 0 * * *", "30 2 * * *", "*/30 * * * *", "0 */6 * * *", "15 1,2,3 * * *"]
ZONES = ["UTC", "Europe/Berlin", "Australia/Lord_Howe"]


class Crash(Exception):
    """A crash of the scheduler between two statements."""


@dataclass
class World:
    """The state of the test: the clock, and the definitions of each schedule over time."""

    sessions: Sessions
    crashing: "CrashingEngine"
    now: datetime = START
    latest: datetime = START
    ids: list[int] = field(default_factory=list)
    definitions: dict[int, list[tuple[str, str, datetime]]] = field(default_factory=dict)

    def record_definition(self, schedule: Schedule) -> None:
        """Record the definition that the next fires follow."""
        assert schedule.id is not None
        assert schedule.defined_at is not None
        definition = (schedule.cron, schedule.timezone, schedule.defined_at)
        known = self.definitions.setdefault(schedule.id, [])
        if definition not in known:
            known.append(definition)


class CrashingEngine:
    """Sessions that crash after a number of statements."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url, application="tests", pool_size=4)
        self.sessions = create_sessions(self._engine)
        self.statements_left = 0
        event.listen(self._engine.sync_engine, "before_cursor_execute", self._count)

    def _count(self, *_: Any) -> None:
        self.statements_left -= 1
        if self.statements_left == 0:
            raise Crash

    async def dispose(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


@pytest.fixture
async def crashing(postgres_url: str) -> AsyncIterator[CrashingEngine]:
    engine = CrashingEngine(postgres_url)
    yield engine
    await engine.dispose()


async def tick(world: World, schedulers: int) -> int:
    """Run schedulers with skewed clocks concurrently; return the number of recorded fires."""

    async def one(skew: timedelta) -> int:
        async with world.sessions.begin() as session:
            return (await materialize(session, now=world.now - skew, limit=3)).recorded

    return sum(await asyncio.gather(*(one(timedelta(seconds=k)) for k in range(schedulers))))


async def crash(world: World, statements: int) -> None:
    """Crash a scheduler after a number of statements."""
    world.crashing.statements_left = statements
    with suppress(Crash):
        async with world.crashing.sessions.begin() as session:
            await materialize(session, now=world.now, limit=10)
    world.crashing.statements_left = 0


async def step(world: World, minutes: int) -> None:
    """Advance the clock, or move it back."""
    world.now += timedelta(minutes=minutes)
    world.latest = max(world.latest, world.now)


async def change(world: World, which: int, changes: dict[str, Any]) -> None:
    """Change the definition of a schedule."""
    async with world.sessions.begin() as session:
        schedule = await service.change(
            session,
            world.ids[which % len(world.ids)],
            changes=changes,
            versions=None,
            now=world.now,
        )
    world.record_definition(schedule)


async def pause(world: World, which: int) -> None:
    """Pause a schedule."""
    async with world.sessions.begin() as session:
        await service.pause(session, world.ids[which % len(world.ids)], note="chaos", now=world.now)


async def resume(world: World, which: int, mode: ResumeMode) -> None:
    """Resume a schedule, if it is paused."""
    async with world.sessions.begin() as session:
        await service.resume(session, world.ids[which % len(world.ids)], mode=mode, now=world.now)


async def work(world: World, ending: str) -> None:
    """Dispatch and claim runs, end them with `ending`, and reap expired leases."""
    async with world.sessions.begin() as session:
        dispatched = await claim_due_runs(session, now=world.now, lease=LEASE, limit=3)
    for run in dispatched:
        async with world.sessions.begin() as session:
            claimed = await claims.claim_next(
                session, run.id, worker="w", now=world.now, lease=LEASE
            )
            if claimed is not None and ending == "fail":
                failed = await retries.record_failure(
                    session,
                    run.id,
                    fence=claimed.fence,
                    error_code="chaos",
                    error_detail="",
                    retryable=False,
                    now=world.now,
                )
                if failed is not None:
                    await pause_after_failure(session, failed, now=world.now)
            if ending == "cancel":
                await cancellation.cancel(session, run.id, now=world.now)
            if ending == "release" and claimed is not None:
                await leases.release(session, run.id, fence=claimed.fence, now=world.now)
    async with world.sessions.begin() as session:
        await leases.reap(
            session,
            now=world.now,
            limit=10,
            on_reaped=partial(pause_after_failure, session, now=world.now),
        )


which = st.integers(0, 2)
changes = st.fixed_dictionaries(
    {},
    optional={
        "cron": st.sampled_from(CRONS),
        "timezone": st.sampled_from(ZONES),
        "overlap": st.sampled_from(Overlap),
        "catchup": st.sampled_from(Catchup),
        "catchup_window": st.sampled_from([timedelta(hours=3), timedelta(days=7)]),
        "jitter": st.sampled_from([timedelta(0), timedelta(minutes=20)]),
        "pause_on_failure": st.booleans(),
    },
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just(tick), st.integers(1, 3)),
        st.tuples(st.just(tick), st.integers(1, 3)),
        st.tuples(st.just(crash), st.integers(1, 9)),
        st.tuples(st.just(step), st.sampled_from([-2, 2, 1, 20, 45, 360, 1500])),
        st.tuples(st.just(step), st.sampled_from([-2, 2, 1, 20, 45, 360, 1500])),
        st.tuples(st.just(change), which, changes),
        st.tuples(st.just(pause), which),
        st.tuples(st.just(resume), which, st.sampled_from(ResumeMode)),
        st.tuples(st.just(work), st.sampled_from(["fail", "cancel", "release", "hang"])),
    ),
    min_size=3,
    max_size=25,
)


@given(steps=steps, crons=st.tuples(*[st.sampled_from(CRONS)] * 3))
@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_no_fire_is_lost_or_doubled_in_any_history(
    sessions: Sessions,
    engine: AsyncEngine,
    crashing: CrashingEngine,
    steps: list[tuple[Any, ...]],
    crons: tuple[str, ...],
) -> None:
    async with engine.begin() as connection:
        for table in ("report_runs", "taskiq_entries", "schedules"):
            await connection.execute(text(f"DELETE FROM {table}"))
    world = World(sessions, crashing)
    for number, expression in enumerate(crons):
        schedule = await create_schedule(sessions, f"s{number}", now=START, cron=expression)
        world.record_definition(schedule)
        world.ids.append(schedule.id or 0)

    for action, *arguments in steps:
        await action(world, *arguments)

    world.now = world.latest
    while await tick(world, 1):
        pass
    await assert_ledger_is_complete(world)


async def assert_ledger_is_complete(world: World) -> None:
    """Compare the ledger with the due times of all definitions, and run the audit."""
    async with world.sessions() as session:
        findings = await find_problems(
            session, since=START, now=world.now, overdue_after=timedelta(days=365)
        )
        assert findings == []
        for schedule_id in world.ids:
            schedule = await queries.get_schedule(session, schedule_id)
            ledger = select(ReportRun).where(
                ReportRun.schedule_id == schedule_id, col(ReportRun.scheduled_for).is_not(None)
            )
            runs = (await session.exec(ledger.order_by(col(ReportRun.scheduled_for)))).all()
            assert [run.scheduled_for for run in runs] == list(_iter_due_times(world, schedule))


def _iter_due_times(world: World, schedule: Schedule) -> Iterator[datetime]:
    """Yield the due times of each definition while it was in effect."""
    assert schedule.id is not None
    definitions = world.definitions[schedule.id]
    ends = [*(since for _, _, since in definitions), max(world.now, schedule.last_fire_at or START)]
    for (expression, timezone, since), end in zip(definitions, ends[1:], strict=True):
        due = due_times.iter_fires(expression, timezone=timezone, after=since)
        yield from takewhile(lambda at, end=end: at <= end, due)  # type: ignore[misc]
    assert all(earlier <= later for earlier, later in pairwise(ends))
