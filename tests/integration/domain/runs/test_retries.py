"""Failed attempts, and the return of runs to pending."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs import leases, queries, retries
from daybook_domain.runs.errors import RunNotEnded
from daybook_domain.runs.models import ReportRun, RunState
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.runs.fires import add_joined_run
from tests.integration.domain.runs.operations import (
    AFTER_LEASE,
    OUTAGE_LIMIT,
    SECOND,
    attempt,
    fail,
    reap,
    release,
)
from tests.support.factories.runs import (
    LEASE,
    NOW,
    claim_run,
    create_pending_run,
    get_run,
    list_all_runs,
    request_run,
)
from tests.support.postgres import wait_for_blocked_transaction

pytestmark = pytest.mark.usefixtures("no_runs")


async def test_a_failed_attempt_waits_for_its_backoff_and_stores_its_error(
    sessions: Sessions,
) -> None:
    run = await claim_run(sessions)

    failed = await fail(sessions, run)

    assert failed is not None
    found = await get_run(sessions, run.id)
    assert (found.state, found.attempt, found.error_code) == (RunState.PENDING, 1, "broken")
    assert NOW + SECOND <= found.available_at <= NOW + 2 * SECOND
    assert found.lease_until is None
    assert found.fence > run.fence
    assert found.error_detail == "x" * 2000


@pytest.mark.parametrize(
    ("attempt", "retryable", "reason"),
    [(5, True, "no attempts left"), (1, False, "not retryable")],
)
async def test_a_run_fails_without_attempts_left_or_with_an_error_that_is_not_retryable(
    sessions: Sessions, attempt: int, *, retryable: bool, reason: str
) -> None:
    run = await claim_run(sessions, attempt=attempt)

    await fail(sessions, run, retryable=retryable)

    found = await get_run(sessions, run.id)
    assert (found.state, found.reason, found.error_code) == (RunState.FAILED, reason, "broken")
    assert found.finished_at == NOW
    assert found.fence > run.fence


@pytest.mark.parametrize(("attempt", "most"), [(1, 2), (2, 4), (5, 32), (9, 300), (1000, 300)])
def test_the_backoff_doubles_up_to_a_cap(attempt: int, most: int) -> None:
    delay = retries.backoff(attempt)

    assert timedelta(seconds=most / 2) <= delay <= timedelta(seconds=most)


def test_the_delays_of_runs_that_fail_together_differ() -> None:
    assert len({retries.backoff(9) for _ in range(20)}) > 1
    assert len({retries.outage_backoff(timedelta(hours=1)) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("unavailable_for", "most"),
    [(timedelta(0), 2), (timedelta(seconds=40), 40), (timedelta(hours=9), 300)],
)
def test_the_delay_in_an_outage_is_as_long_as_the_outage_up_to_a_cap(
    unavailable_for: timedelta, most: int
) -> None:
    delay = retries.outage_backoff(unavailable_for)

    assert timedelta(seconds=most / 2) <= delay <= timedelta(seconds=most)


async def test_attempts_that_end_because_of_an_outage_are_not_counted(sessions: Sessions) -> None:
    run, now = await create_pending_run(sessions), NOW

    for _ in range(20):
        failed = await attempt(sessions, run, now=now, is_outage=True)
        assert failed.available_at - now <= retries.BACKOFF_CAP
        now = failed.available_at

    found = await get_run(sessions, run.id)
    assert (found.state, found.attempt, found.outage_since) == (RunState.PENDING, 0, NOW)
    assert now - NOW > timedelta(minutes=15)


async def test_attempts_are_counted_again_after_hours_of_an_outage(sessions: Sessions) -> None:
    run = await create_pending_run(sessions)
    last_uncounted = NOW + OUTAGE_LIMIT - SECOND
    await attempt(sessions, run, now=NOW, is_outage=True)
    before = await attempt(sessions, run, now=last_uncounted, is_outage=True)
    now, attempts = before.available_at, list[int]()

    while (await get_run(sessions, run.id)).state is RunState.PENDING:
        failed = await attempt(sessions, run, now=now, is_outage=True)
        attempts.append(failed.attempt)
        now = failed.available_at

    found = await get_run(sessions, run.id)
    assert (before.attempt, attempts) == (0, [1, 2, 3, 4, 5])
    assert (found.state, found.reason) == (RunState.FAILED, "no attempts left")


async def test_another_error_ends_an_outage_and_is_counted(sessions: Sessions) -> None:
    run = await create_pending_run(sessions)
    await attempt(sessions, run, now=NOW, is_outage=True)
    later = NOW + OUTAGE_LIMIT

    other = await attempt(sessions, run, now=later)
    again = await attempt(sessions, run, now=later + OUTAGE_LIMIT, is_outage=True)

    assert (other.attempt, other.outage_since) == (1, None)
    assert (again.attempt, again.outage_since) == (1, later + OUTAGE_LIMIT)


async def test_an_outage_does_not_begin_after_a_clock_that_was_set_back(
    sessions: Sessions,
) -> None:
    run = await create_pending_run(sessions)
    await attempt(sessions, run, now=NOW + timedelta(days=1), is_outage=True)
    async with sessions.begin() as session:
        await session.merge(ReportRun(**(run.model_dump() | {"available_at": NOW})))

    failed = await attempt(sessions, run, now=NOW, is_outage=True)

    assert (failed.outage_since, failed.attempt) == (NOW, 0)
    assert failed.available_at <= NOW + retries.BACKOFF_CAP


@pytest.mark.parametrize(("late", "attempts"), [(timedelta(0), 1), (SECOND, 0)])
async def test_a_run_that_is_reaped_late_has_used_no_attempt(
    sessions: Sessions, late: timedelta, attempts: int
) -> None:
    run = await claim_run(sessions)

    await reap(sessions, now=NOW + LEASE + leases.REAPER_ABSENCE + late)

    found = await get_run(sessions, run.id)
    assert (found.state, found.attempt) == (RunState.PENDING, attempts)


async def retry(sessions: Sessions, run: ReportRun) -> ReportRun:
    async with sessions.begin() as session:
        return await retries.retry(session, run.id, now=NOW)


async def test_a_failed_run_that_is_retried_has_all_its_attempts(sessions: Sessions) -> None:
    run = await claim_run(sessions, attempt=5)
    await fail(sessions, run)

    await retry(sessions, run)

    found = await get_run(sessions, run.id)
    assert (found.state, found.attempt, found.finished_at) == (RunState.PENDING, 0, None)
    assert (found.error_code, found.error_detail, found.reason) == (None, None, None)
    attempts = [await attempt(sessions, run, now=NOW + timedelta(hours=n)) for n in range(5)]
    assert [run.attempt for run in attempts] == [1, 2, 3, 4, 5]
    assert attempts[-1].state is RunState.FAILED


async def test_a_run_that_joined_another_cannot_be_retried(sessions: Sessions) -> None:
    joined_run = await add_joined_run(sessions)
    (fire, _) = await list_all_runs(sessions)

    with pytest.raises(RunNotEnded, match=f"joined run {joined_run.id}"):
        await retry(sessions, fire)

    assert await get_run(sessions, fire.id) == fire


async def test_a_retried_run_forgets_its_outage(sessions: Sessions) -> None:
    run = await claim_run(sessions, attempt=5)
    async with sessions.begin() as session:
        await session.merge(ReportRun(**(run.model_dump() | {"outage_since": NOW - OUTAGE_LIMIT})))
    await fail(sessions, run, is_outage=True)

    await retry(sessions, run)

    assert (await attempt(sessions, run, now=NOW, is_outage=True)).attempt == 0


async def test_the_run_of_a_failure_is_locked_until_it_is_recorded(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    run = await claim_run(sessions)
    async with sessions.begin() as session:
        await queries.find_claimed_run_for_update(session, run.id, fence=run.fence)
        failing = asyncio.create_task(fail(sessions, run))
        await wait_for_blocked_transaction(engine)
        # Meanwhile the reaper skips the run, which it would otherwise end a second time.
        assert await reap(sessions) == []
    await failing

    assert (await get_run(sessions, run.id)).attempt == 1


async def test_a_reaped_run_joins_the_waiting_run_of_its_date(sessions: Sessions) -> None:
    reaped = await claim_run(sessions)
    waiting = await create_pending_run(sessions)

    await reap(sessions)

    found = await get_run(sessions, reaped.id)
    assert (found.state, found.joined_run_id) == (RunState.SKIPPED, waiting.id)
    assert found.reason == f"joined: run {waiting.id} was waiting for 2026-03-01 already"
    assert found.finished_at == AFTER_LEASE
    assert (await get_run(sessions, waiting.id)).state == RunState.PENDING


async def test_a_failed_and_a_released_run_join_the_waiting_run_of_their_date(
    sessions: Sessions,
) -> None:
    failed = await claim_run(sessions)
    released = await claim_run(sessions)
    waiting = await create_pending_run(sessions)
    await fail(sessions, failed)
    await release(sessions, released)

    for run in (failed, released):
        found = await get_run(sessions, run.id)
        assert (found.state, found.joined_run_id) == (RunState.SKIPPED, waiting.id)


async def test_a_failed_run_joins_a_request_that_is_being_committed(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    run = await claim_run(sessions)
    async with sessions.begin() as session:
        requested = await request_run(session)
        failing = asyncio.create_task(fail(sessions, run))
        await wait_for_blocked_transaction(engine)

    await failing
    assert (await get_run(sessions, run.id)).joined_run_id == requested.run.id


async def test_a_failed_run_is_pending_when_a_concurrent_request_is_rolled_back(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    run = await claim_run(sessions)
    async with sessions() as session:
        await request_run(session)
        failing = asyncio.create_task(fail(sessions, run))
        await wait_for_blocked_transaction(engine)
        await session.rollback()

    await failing
    assert (await get_run(sessions, run.id)).state == RunState.PENDING
