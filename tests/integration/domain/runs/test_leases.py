"""Leases of runs: extension, release, and the reaper."""

import asyncio
from datetime import date

import pytest

from daybook_domain.runs import leases
from daybook_domain.runs.models import RunState
from daybook_domain.schedules.materialization import materialize
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.runs.operations import (
    AFTER_LEASE,
    SHORT_LOCK_TIMEOUT,
    fail,
    reap,
    release,
)
from tests.support.factories.runs import (
    LEASE,
    NOW,
    claim_due_runs,
    claim_run,
    get_run,
    queue_run,
    request_run,
)
from tests.support.factories.schedules import (
    DAY,
    MIDNIGHT,
    define_daily_schedule,
    materialize_due_fires,
)

pytestmark = pytest.mark.usefixtures("no_runs")


async def test_a_worker_extends_the_lease_of_its_own_run_only(sessions: Sessions) -> None:
    run = await claim_run(sessions)
    async with sessions.begin() as session:
        with_current_fence = await leases.extend(
            session, run.id, fence=run.fence, until=AFTER_LEASE, progress="half of it"
        )
        with_old_fence = await leases.extend(session, run.id, fence=run.fence - 1, until=NOW)

    found = await get_run(sessions, run.id)
    assert (with_current_fence, with_old_fence) == (True, False)
    assert (found.lease_until, found.progress) == (AFTER_LEASE, "half of it")


async def test_a_reaped_run_cannot_be_extended_failed_or_released_by_its_old_worker(
    sessions: Sessions,
) -> None:
    run = await claim_run(sessions)
    await reap(sessions)
    before = await get_run(sessions, run.id)
    async with sessions.begin() as session:
        extended = await leases.extend(session, run.id, fence=run.fence, until=AFTER_LEASE)
        await leases.release(session, run.id, fence=run.fence, now=NOW)
    failed = await fail(sessions, run)

    assert (extended, failed) == (False, None)
    assert await get_run(sessions, run.id) == before


async def test_a_released_run_is_available_immediately_and_its_attempt_does_not_count(
    sessions: Sessions,
) -> None:
    run = await claim_run(sessions)
    await release(sessions, run)

    found = await get_run(sessions, run.id)
    assert (found.state, found.attempt, found.available_at) == (RunState.PENDING, 0, NOW)
    assert found.fence > run.fence


async def test_the_reaper_reaps_only_runs_with_an_expired_lease(sessions: Sessions) -> None:
    await claim_run(sessions)
    await queue_run(sessions, day=date(2026, 1, 1))

    assert await reap(sessions, now=NOW + LEASE) == []
    assert len(await reap(sessions)) == 2


async def test_a_reaped_queued_run_is_pending_without_a_used_attempt(sessions: Sessions) -> None:
    run = await queue_run(sessions)

    await reap(sessions)

    found = await get_run(sessions, run.id)
    assert (found.state, found.attempt, found.available_at) == (RunState.PENDING, 0, AFTER_LEASE)


async def test_a_reaped_running_run_has_used_an_attempt_and_is_available_immediately(
    sessions: Sessions,
) -> None:
    run = await claim_run(sessions)

    await reap(sessions)

    found = await get_run(sessions, run.id)
    assert (found.state, found.attempt, found.available_at) == (RunState.PENDING, 1, AFTER_LEASE)
    assert (found.error_code, found.error_detail) == (
        "lease_expired",
        "worker w1 did not extend the lease in time",
    )


async def test_a_reaped_run_without_attempts_left_has_failed(sessions: Sessions) -> None:
    run = await claim_run(sessions, attempt=5)

    await reap(sessions)

    assert (await get_run(sessions, run.id)).state == RunState.FAILED


async def test_concurrent_reapers_reap_each_run_once(sessions: Sessions) -> None:
    runs = [await claim_run(sessions, day=date(2026, 1, day)) for day in range(1, 9)]

    reaped = await asyncio.gather(*(reap(sessions) for _ in range(4)))

    assert sorted(run.id for batch in reaped for run in batch) == sorted(run.id for run in runs)


async def test_the_reaper_skips_a_run_that_is_locked(sessions: Sessions) -> None:
    run = await claim_run(sessions)
    async with sessions.begin() as session:
        await leases.extend(session, run.id, fence=run.fence, until=AFTER_LEASE)
        assert await reap(sessions) == []


async def test_the_reaper_continues_after_a_run_that_cannot_be_reaped_now(
    sessions: Sessions,
) -> None:
    blocked = await claim_run(sessions)
    unblocked = await claim_run(sessions, day=date(2026, 1, 1))
    async with sessions() as locking_session:
        await request_run(locking_session)
        async with sessions.begin() as session:
            await session.execute(SHORT_LOCK_TIMEOUT)
            reaped = await leases.reap(session, now=AFTER_LEASE, limit=10)

    assert [run.id for run in reaped] == [unblocked.id]
    found = await get_run(sessions, blocked.id)
    assert (found.state, found.lease_until) == (
        RunState.RUNNING,
        AFTER_LEASE + leases.REAP_RETRY_DELAY,
    )


async def test_a_run_is_reaped_while_its_schedule_fires(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    await materialize_due_fires(sessions, now=MIDNIGHT)
    async with sessions.begin() as session:
        (run,) = await claim_due_runs(session, now=MIDNIGHT, lease=LEASE, limit=1)
    tomorrow = MIDNIGHT + DAY
    async with sessions() as firing_session:
        fires = await materialize(firing_session, now=tomorrow, limit=1)
        async with sessions.begin() as session:
            await session.execute(SHORT_LOCK_TIMEOUT)
            reaped = await leases.reap(session, now=tomorrow, limit=10)

    assert fires.runs == 1
    assert [run.id for run in reaped] == [run.id]
