"""Overlap policy: fires and pending runs beside earlier work of their schedule."""

import asyncio
from collections import Counter
from datetime import date, datetime, timedelta

import pytest
from sqlmodel import col, select

from daybook_domain.runs import cancellation, claims
from daybook_domain.runs.models import ReportRun, RunState
from daybook_domain.schedules.materialization import MaterializationResult
from daybook_domain.schedules.models import Overlap
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import claim_due_runs, create_pending_run, list_all_runs
from tests.support.factories.schedules import DAY, MIDNIGHT, create_schedule, materialize_due_fires

pytestmark = pytest.mark.usefixtures("no_runs")

HOUR = timedelta(hours=1)
NEVER_ENDS = timedelta(days=30)


async def test_under_skip_one_of_the_overlapping_fires_becomes_a_run(sessions: Sessions) -> None:
    await create_schedule(sessions, cron="0 * * * *", overlap=Overlap.SKIP)

    fires = [
        await materialize_due_fires(sessions, now=MIDNIGHT + timedelta(hours=k))
        for k in (0, 0, 1, 3)
    ]

    runs = await list_all_runs(sessions)
    assert fires == [
        MaterializationResult(runs=1),
        MaterializationResult(),
        MaterializationResult(overlapped=1),
        MaterializationResult(overlapped=2),
    ]
    assert {run.reason for run in runs[1:]} == {
        "overlap: earlier work of this schedule was in progress"
    }
    async with sessions.begin() as session:
        await cancellation.cancel(session, runs[0].id, now=MIDNIGHT)
    assert await materialize_due_fires(
        sessions, now=MIDNIGHT + timedelta(hours=4)
    ) == MaterializationResult(runs=1)


async def test_a_joined_run_counts_as_active_work_of_the_schedule_that_joined_it(
    sessions: Sessions,
) -> None:
    await create_schedule(sessions, cron="0 * * * *", overlap=Overlap.SKIP)
    await create_pending_run(sessions, day=date(2026, 3, 1))

    fires = [
        await materialize_due_fires(sessions, now=MIDNIGHT + timedelta(hours=k)) for k in (0, 1)
    ]

    assert fires == [MaterializationResult(joined=1), MaterializationResult(overlapped=1)]


@pytest.mark.parametrize(
    ("overlap", "batch_sizes"), [(Overlap.BUFFER_ONE, [1, 0]), (Overlap.ALLOW, [3, 0])]
)
async def test_runs_of_a_schedule_are_dispatched_one_by_one_in_order_unless_they_may_overlap(
    sessions: Sessions, overlap: Overlap, batch_sizes: list[int]
) -> None:
    await create_schedule(sessions, overlap=overlap)
    now = MIDNIGHT + 2 * DAY
    await materialize_due_fires(sessions, now=now)

    batches = []
    for _ in range(2):
        async with sessions.begin() as session:
            batches.append(await claim_due_runs(session, now=now, lease=DAY, limit=10))
    assert [len(batch) for batch in batches] == batch_sizes
    assert batches[0][0].report_date == date(2026, 3, 1)
    async with sessions.begin() as session:
        await cancellation.cancel(session, batches[0][0].id, now=now)
        later = await claim_due_runs(session, now=now, lease=DAY, limit=10)
    assert [run.report_date for run in later] == [date(2026, 3, 2)][: overlap == "buffer_one"]


async def test_concurrent_schedulers_dispatch_one_run_of_a_schedule(sessions: Sessions) -> None:
    await create_schedule(sessions)
    now = MIDNIGHT + 5 * DAY
    await materialize_due_fires(sessions, now=now)

    async def dispatch() -> int:
        async with sessions.begin() as session:
            return len(await claim_due_runs(session, now=now, lease=DAY, limit=10))

    assert sum(await asyncio.gather(*(dispatch() for _ in range(6)))) == 1


async def dispatch_and_claim(sessions: Sessions, *, now: datetime) -> list[ReportRun]:
    """Dispatch and claim all due runs; return them in the order of dispatch."""
    async with sessions.begin() as session:
        dispatched = await claim_due_runs(session, now=now, lease=NEVER_ENDS, limit=100)
    claimed = []
    for run in dispatched:
        async with sessions.begin() as session:
            claimed.append(
                await claims.claim_next(session, run.id, worker="w", now=now, lease=NEVER_ENDS)
            )
    return [run for run in claimed if run is not None]


@pytest.mark.parametrize(
    ("overlap", "active", "pending"),
    [
        (Overlap.SKIP, 1, 0),
        # One for each of the two dates that 48 hourly fires report.
        (Overlap.BUFFER_ONE, 1, 2),
        (Overlap.ALLOW, 48, 0),
    ],
)
async def test_a_run_longer_than_its_interval_grows_the_queue_only_if_overlap_is_allowed(
    sessions: Sessions, overlap: Overlap, active: int, pending: int
) -> None:
    schedule = await create_schedule(sessions, cron="0 * * * *", overlap=overlap)

    for hour in range(48):
        now = MIDNIGHT + hour * HOUR
        # No run ends, and another worker is always free.
        await materialize_due_fires(sessions, now=now)
        await dispatch_and_claim(sessions, now=now)

    async with sessions() as session:
        states = select(ReportRun.state).where(col(ReportRun.schedule_id) == schedule.id)
        count = Counter((await session.exec(states)).all())
    assert count[RunState.QUEUED] + count[RunState.RUNNING] == active
    assert count[RunState.PENDING] == pending
    assert count.total() == 48
