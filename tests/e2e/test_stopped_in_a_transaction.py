"""Do the others go on when a process is stopped in the middle of a transaction, and not gone?

Its connection stays, and with it what it has locked. The others pass over that, or wait for it, for
as long as the server lets it be idle.
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
from tests.support.waiting import until

pytestmark = pytest.mark.rabbitmq

DAY = date(2026, 11, 23)

A_WAITING_RUN = """
INSERT INTO report_runs
    (id, report_date, trigger, state, priority, attempt, max_attempts, available_at, fence)
VALUES (gen_random_uuid(), '2026-11-23', 'manual', 'pending', 0, 0, 5, now(), 0)
"""

# Whoever claims a run waits here, with the run locked.
CLAIMS_WAIT = (
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
async def held(stack: Stack, statement: str) -> AsyncIterator[None]:
    """Hold what `statement` locks."""
    async with stack.sessions() as session:
        await session.execute(text(statement))
        yield
        await session.rollback()


async def until_it_is(stack: Stack, state: str, *, application: str, query: str) -> None:
    """Wait until a connection of `application` is in `state`, with `query` as its latest."""

    async def is_so() -> bool:
        async with stack.sessions() as session:
            values = {"application": application, "query": query, "state": state}
            return bool((await session.execute(STATE, values)).scalar_one())

    await until(is_so, what=f"{application} being {state}")


async def stop(service: Service, stack: Stack, *, application: str, query: str) -> None:
    """Stop a service when its query has to wait for a lock."""
    await until_it_is(stack, "blocked", application=application, query=query)
    service.send(signal.SIGSTOP)


async def test_what_is_due_is_fired_by_another_scheduler(stack: Stack) -> None:
    midnight = business_day(DAY, timezone=stack.timezone).ends_at
    await stack.clock.set(midnight - timedelta(hours=1))
    stopped, _ = await asyncio.gather(stack.scheduler(), stack.worker())
    fire = {"application": "daybook-scheduler", "query": "%INSERT INTO report_runs%"}
    # Whether the fire joins it is decided when its transaction has ended.
    async with held(stack, A_WAITING_RUN):
        await stack.clock.set(midnight)
        await stop(stopped, stack, **fire)
    await until_it_is(stack, "idle in transaction", **fire)

    await stack.scheduler()

    await stack.until_sealed(DAY)
    stopped.send(signal.SIGCONT)
    assert await asyncio.to_thread(stopped.stop) == 0
    assert [run.state for run in await stack.runs()] == [RunState.SUCCEEDED]


async def test_what_waits_is_built_by_another_worker(stack: Stack) -> None:
    midnight = business_day(DAY, timezone=stack.timezone).ends_at
    await stack.clock.set(midnight + timedelta(hours=1))
    await stack.scheduler(DAYBOOK_RECONCILE_DAYS="0")
    run_id = await stack.request(DAY)
    await stack.until_state(run_id, RunState.QUEUED)
    claim = {"application": "daybook-worker", "query": "%UPDATE report_runs SET%"}
    async with stack.sessions.begin() as session:
        for statement in CLAIMS_WAIT:
            await session.execute(text(statement))
    async with held(stack, "SELECT pg_advisory_xact_lock(1)"):
        await stop(await stack.worker(), stack, **claim)
    await until_it_is(stack, "idle in transaction", **claim)

    await stack.worker()
    # The lease of the message that the stopped one has runs out.
    await stack.clock.step(timedelta(minutes=1))

    run = await stack.until_state(run_id, RunState.SUCCEEDED)
    assert run.attempt == 1
