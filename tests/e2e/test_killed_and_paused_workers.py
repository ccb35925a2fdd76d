"""Runs whose worker is killed, paused or stopped during the build."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from daybook_domain.reports.business_day import business_day
from daybook_domain.runs.models import RunState
from tests.e2e.stack import Stack
from tests.support.processes import Service
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq

DAY = date(2026, 11, 23)


@asynccontextmanager
async def blocked_build(stack: Stack) -> AsyncIterator[None]:
    """Insert an uncommitted row on which the build blocks while it inserts its rows."""
    async with stack.sessions() as session:
        await session.execute(
            text("INSERT INTO reports (report_at, order_id, count_product) VALUES (:day, 2, 0)"),
            {"day": DAY},
        )
        yield
        await session.rollback()


async def wait_until_blocked(stack: Stack) -> None:
    """Wait until a build blocks on the row of `blocked_build`."""
    statement = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query ILIKE '%INSERT INTO reports%'"
    )

    async def blocked() -> bool:
        async with stack.sessions() as session:
            return bool((await session.execute(statement)).scalar_one())

    await wait_until(blocked, what="a blocked build")


async def prepare_day(stack: Stack) -> None:
    """Add a day with orders, and start a scheduler for which no fire is due."""
    span = business_day(DAY, timezone=stack.timezone)
    await stack.add_orders(*(span.starts_at + timedelta(hours=n) for n in range(5)))
    await stack.clock.set(span.ends_at + timedelta(hours=1))
    await stack.start_scheduler(DAYBOOK_RECONCILE_DAYS="0")


async def start_blocked_run(stack: Stack) -> tuple[UUID, Service]:
    """Request a run, and return it with its worker once the build is blocked."""
    run_id = await stack.request_run(DAY)
    worker = await stack.start_worker()
    await wait_until_blocked(stack)
    return run_id, worker


async def test_a_worker_killed_during_a_build_costs_one_attempt_and_nothing_else(
    stack: Stack,
) -> None:
    await prepare_day(stack)
    async with blocked_build(stack):
        run_id, worker = await start_blocked_run(stack)
        worker.kill()
        await stack.start_worker()
    run = await stack.wait_for_state(run_id, RunState.SUCCEEDED)

    assert run.attempt == 2
    day = await stack.find_day(DAY)
    assert day is not None
    assert day.revision == 1
    assert await stack.read_report(DAY) == await stack.compute_expected_report(DAY)


async def test_a_worker_paused_past_its_lease_cannot_commit(stack: Stack) -> None:
    await prepare_day(stack)
    async with blocked_build(stack):
        run_id, paused = await start_blocked_run(stack)
        paused.send(signal.SIGSTOP)
        await stack.start_worker()
    run = await stack.wait_for_state(run_id, RunState.SUCCEEDED, seconds=60)
    assert run.attempt == 2
    before = await stack.read_report(DAY)

    paused.send(signal.SIGCONT)

    async def noticed() -> bool:
        # It notices the closed connection or the lost lease, whichever is first.
        return any(words in paused.read_log() for words in ("build failed", "run lost"))

    await wait_until(noticed, what="the end of the build in the resumed worker")
    again = await stack.get_run(run_id)
    assert (again.state, again.attempt, again.fence) == (run.state, run.attempt, run.fence)
    day = await stack.find_day(DAY)
    assert day is not None
    assert day.revision == 1
    assert await stack.read_report(DAY) == before == await stack.compute_expected_report(DAY)
    assert await asyncio.to_thread(paused.stop) == 0


async def test_a_worker_stopped_during_a_build_releases_its_run_to_another(stack: Stack) -> None:
    await prepare_day(stack)
    async with blocked_build(stack):
        run_id = await stack.request_run(DAY)
        leaving = await stack.start_worker(DAYBOOK_DRAIN_SECONDS="1")
        await wait_until_blocked(stack)
        assert await asyncio.to_thread(leaving.stop) == 0
        released = await stack.get_run(run_id)
        assert released.state in {RunState.PENDING, RunState.QUEUED}
        await stack.start_worker()
    run = await stack.wait_for_state(run_id, RunState.SUCCEEDED)

    assert run.attempt == 1
    assert await stack.read_report(DAY) == await stack.compute_expected_report(DAY)
