"""Processes that are paused (SIGSTOP) inside a transaction.

The connection stays open and holds its locks. Other processes skip these rows or wait for them,
until the server ends the idle transaction.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta

import pytest
from sqlalchemy import text

from daybook_domain.reports.business_day import business_day
from daybook_domain.runs.models import RunState
from tests.e2e.stack import Stack
from tests.support.processes import Service
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq

DAY = date(2026, 11, 23)

WAITING_RUN = """
INSERT INTO report_runs
    (id, report_date, trigger, state, priority, attempt, max_attempts, available_at, fence)
VALUES (gen_random_uuid(), '2026-11-23', 'manual', 'pending', 0, 0, 5, now(), 0)
"""

# A claim blocks here, with the run locked.
BLOCK_CLAIMS = (
    """
    CREATE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(1);
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER wait_for_the_test BEFORE UPDATE ON report_runs FOR EACH ROW
    WHEN (OLD.state = 'queued' AND NEW.state = 'running') EXECUTE FUNCTION wait_for_the_test()
    """,
)

STATE = text(
    """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = :application AND query LIKE :query
        AND CASE WHEN wait_event_type = 'Lock' THEN 'blocked' ELSE state END = :state
    """
)


@asynccontextmanager
async def uncommitted(stack: Stack, statement: str) -> AsyncIterator[None]:
    """Execute `statement` in a transaction that stays open during the block."""
    async with stack.sessions() as session:
        await session.execute(text(statement))
        yield
        await session.rollback()


async def wait_for_connection(stack: Stack, state: str, *, application: str, query: str) -> None:
    """Wait until a connection of `application` with the latest query `query` is in `state`."""

    async def is_in_state() -> bool:
        async with stack.sessions() as session:
            values = {"application": application, "query": query, "state": state}
            return bool((await session.execute(STATE, values)).scalar_one())

    await wait_until(is_in_state, what=f"a connection of {application} in state {state}")


async def pause(service: Service, stack: Stack, *, application: str, query: str) -> None:
    """Pause a service once its query waits for a lock."""
    await wait_for_connection(stack, "blocked", application=application, query=query)
    service.send(signal.SIGSTOP)


async def test_a_due_fire_of_a_paused_scheduler_is_recorded_by_another(stack: Stack) -> None:
    midnight = business_day(DAY, timezone=stack.timezone).ends_at
    await stack.clock.set(midnight - timedelta(hours=1))
    paused, _ = await asyncio.gather(stack.start_scheduler(), stack.start_worker())
    fire = {"application": "daybook-scheduler", "query": "%INSERT INTO report_runs%"}
    # The fire waits for this transaction to decide whether it joins the run.
    async with uncommitted(stack, WAITING_RUN):
        await stack.clock.set(midnight)
        await pause(paused, stack, **fire)
    await wait_for_connection(stack, "idle in transaction", **fire)

    await stack.start_scheduler()

    await stack.wait_until_sealed(DAY)
    paused.send(signal.SIGCONT)
    assert await asyncio.to_thread(paused.stop) == 0
    assert [run.state for run in await stack.list_runs()] == [RunState.SUCCEEDED]


async def test_a_run_that_a_paused_worker_was_claiming_is_built_by_another(stack: Stack) -> None:
    midnight = business_day(DAY, timezone=stack.timezone).ends_at
    await stack.clock.set(midnight + timedelta(hours=1))
    await stack.start_scheduler(DAYBOOK_RECONCILE_DAYS="0")
    run_id = await stack.request_run(DAY)
    await stack.wait_for_state(run_id, RunState.QUEUED)
    claim = {"application": "daybook-worker", "query": "%UPDATE report_runs SET%"}
    async with stack.sessions.begin() as session:
        for statement in BLOCK_CLAIMS:
            await session.execute(text(statement))
    async with uncommitted(stack, "SELECT pg_advisory_xact_lock(1)"):
        await pause(await stack.start_worker(), stack, **claim)
    await wait_for_connection(stack, "idle in transaction", **claim)

    await stack.start_worker()
    # The lease of the run expires whose message the paused worker has.
    await stack.clock.step(timedelta(minutes=1))

    run = await stack.wait_for_state(run_id, RunState.SUCCEEDED)
    assert run.attempt == 1
