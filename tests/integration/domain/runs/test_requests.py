"""Requests for runs, also concurrent ones."""

import asyncio
from datetime import UTC, date, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.pg_channels import RUNS_CHANNEL
from daybook_domain.runs import claims, requests
from daybook_domain.runs.errors import FutureDay, RunsLocked
from daybook_domain.runs.models import RunState, RunTrigger
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.runs.operations import AFTER_LEASE, claim
from tests.support.factories.runs import DAY, LEASE, NOW, get_run, queue_run, request_run
from tests.support.postgres import wait_for_blocked_transaction

pytestmark = pytest.mark.usefixtures("no_runs")


async def request_and_commit(sessions: Sessions) -> requests.RequestedRun:
    async with sessions.begin() as session:
        return await request_run(session)


async def test_a_request_creates_a_pending_run(sessions: Sessions) -> None:
    requested = await request_and_commit(sessions)

    run = await get_run(sessions, requested.run.id)
    assert (run.state, run.report_date, run.attempt) == (RunState.PENDING, DAY, 0)
    assert not requested.joined


async def test_a_request_for_a_day_that_has_not_started_is_refused(sessions: Sessions) -> None:
    tomorrow = date(2026, 3, 3)

    async with sessions.begin() as session:
        with pytest.raises(FutureDay, match="2026-03-03 has not started"):
            await request_run(session, day=tomorrow)
        started = await request_run(session, day=tomorrow, now=datetime(2026, 3, 3, tzinfo=UTC))

    assert started.run.report_date == tomorrow


async def test_a_request_joins_the_waiting_run_and_makes_it_more_urgent(
    sessions: Sessions,
) -> None:
    async with sessions.begin() as session:
        first = await request_run(session, now=AFTER_LEASE, trigger=RunTrigger.BACKFILL)
    async with sessions.begin() as session:
        second = await request_run(session, now=NOW, trigger=RunTrigger.MANUAL)

    assert second.joined
    assert second.run.id == first.run.id
    assert (second.run.priority, second.run.available_at) == (0, NOW)
    assert second.run.trigger == RunTrigger.BACKFILL


async def test_a_request_joins_a_queued_run_but_not_a_running_one(sessions: Sessions) -> None:
    run = await queue_run(sessions)
    joined = await request_and_commit(sessions)
    await claim(sessions, run)
    added = await request_and_commit(sessions)

    assert (joined.joined, joined.run.id) == (True, run.id)
    assert (added.joined, added.run.state) == (False, RunState.PENDING)


async def test_concurrent_requests_share_one_run(sessions: Sessions) -> None:
    results = await asyncio.gather(*(request_and_commit(sessions) for _ in range(8)))

    assert len({result.run.id for result in results}) == 1
    assert [result.joined for result in results].count(False) == 1


async def test_a_joined_run_is_not_claimed_before_the_request_is_committed(
    sessions: Sessions,
) -> None:
    run = await queue_run(sessions)
    async with sessions.begin() as session:
        await request_run(session)
        with pytest.raises(RunsLocked):
            await claim(sessions, run)

    assert await claim(sessions, run) is not None


async def test_a_request_whose_run_is_claimed_concurrently_adds_another(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    run = await queue_run(sessions)

    async with sessions.begin() as session:
        await claims.claim_next(session, run.id, worker="w1", now=NOW, lease=LEASE)
        requesting = asyncio.create_task(request_and_commit(sessions))
        await wait_for_blocked_transaction(engine)

    requested = await requesting
    assert not requested.joined
    assert requested.run.id != run.id


async def test_a_request_notifies_the_schedulers_when_it_is_committed(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    notified = asyncio.Event()
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.add_listener(RUNS_CHANNEL, lambda *_: notified.set())
        async with sessions.begin() as session:
            await request_run(session)
            assert not notified.is_set()
        async with asyncio.timeout(5):
            await notified.wait()
        await connection.invalidate()
