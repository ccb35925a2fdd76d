"""What becomes of a run whose worker is killed, or paused, in the middle of the build?"""

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
from tests.support.waiting import until

pytestmark = pytest.mark.rabbitmq

DAY = date(2026, 11, 23)


@asynccontextmanager
async def blocked_build(stack: Stack) -> AsyncIterator[None]:
    """Hold an uncommitted row that the build has to wait for, half way through its rows."""
    async with stack.sessions() as session:
        await session.execute(
            text("INSERT INTO reports (report_at, order_id, count_product) VALUES (:day, 2, 0)"),
            {"day": DAY},
        )
        yield
        await session.rollback()


async def until_blocked(stack: Stack) -> None:
    """Wait until a build waits for the row of `blocked_build`."""
    statement = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query ILIKE '%INSERT INTO reports%'"
    )

    async def blocked() -> bool:
        async with stack.sessions() as session:
            return bool((await session.execute(statement)).scalar_one())

    await until(blocked, what="the build being in the middle of its rows")


async def prepared(stack: Stack) -> None:
    """Let there be a day with orders, and a scheduler that finds nothing due."""
    span = business_day(DAY, timezone=stack.timezone)
    await stack.add_orders(*(span.starts_at + timedelta(hours=n) for n in range(5)))
    await stack.clock.set(span.ends_at + timedelta(hours=1))
    await stack.scheduler(DAYBOOK_RECONCILE_DAYS="0")


async def run_in_the_middle(stack: Stack) -> tuple[UUID, Service]:
    """Give a run whose build is half way, and the worker that is at it."""
    run_id = await stack.request(DAY)
    worker = await stack.worker()
    await until_blocked(stack)
    return run_id, worker


async def test_a_worker_killed_in_the_middle_costs_one_attempt_and_nothing_else(
    stack: Stack,
) -> None:
    await prepared(stack)
    async with blocked_build(stack):
        run_id, worker = await run_in_the_middle(stack)
        worker.kill()
        await stack.worker()
    run = await stack.until_state(run_id, RunState.SUCCEEDED)

    assert run.attempt == 2
    line = await stack.day(DAY)
    assert line is not None
    assert line.revision == 1
    assert await stack.rows(DAY) == await stack.expected(DAY)


async def test_a_worker_paused_past_its_lease_cannot_commit(stack: Stack) -> None:
    await prepared(stack)
    async with blocked_build(stack):
        run_id, paused = await run_in_the_middle(stack)
        paused.send(signal.SIGSTOP)
        await stack.worker()
    run = await stack.until_state(run_id, RunState.SUCCEEDED, seconds=60)
    assert run.attempt == 2
    before = await stack.rows(DAY)

    paused.send(signal.SIGCONT)

    async def noticed() -> bool:
        # Which of the two comes first: that its connection is gone, or that its lease is.
        return any(words in paused.said() for words in ("build failed", "run lost"))

    await until(noticed, what="the resumed worker finding its build ended")
    again = await stack.run(run_id)
    assert (again.state, again.attempt, again.fence) == (run.state, run.attempt, run.fence)
    line = await stack.day(DAY)
    assert line is not None
    assert line.revision == 1
    assert await stack.rows(DAY) == before == await stack.expected(DAY)
    assert await asyncio.to_thread(paused.stop) == 0


async def test_a_worker_asked_to_stop_in_the_middle_gives_its_run_to_another(stack: Stack) -> None:
    await prepared(stack)
    async with blocked_build(stack):
        run_id = await stack.request(DAY)
        leaving = await stack.worker(DAYBOOK_DRAIN_SECONDS="1")
        await until_blocked(stack)
        assert await asyncio.to_thread(leaving.stop) == 0
        released = await stack.run(run_id)
        assert released.state in {RunState.PENDING, RunState.QUEUED}
        await stack.worker()
    run = await stack.until_state(run_id, RunState.SUCCEEDED)

    assert run.attempt == 1
    assert await stack.rows(DAY) == await stack.expected(DAY)
