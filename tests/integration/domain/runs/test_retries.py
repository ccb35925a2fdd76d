"""Failed attempts, and the return of runs to pending."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs import retries
from daybook_domain.runs.models import RunState
from daybook_platform.postgres.engine import Sessions
from tests.integration.domain.runs.operations import AFTER_LEASE, SECOND, fail, reap, release
from tests.support.factories.runs import NOW, claim_run, create_pending_run, get_run, request_run
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
