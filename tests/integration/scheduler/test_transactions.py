"""Transactions of the scheduler during an outage of Postgres."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
import structlog
from sqlalchemy import text

from daybook_platform.postgres.engine import create_engine, create_sessions, dispose
from daybook_scheduler.transactions import TransactionFactory
from tests.integration.scheduler.loops import (
    CONFIG,
    LoopFactory,
    RecordingQueue,
)
from tests.support.factories.runs import create_pending_run
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until


async def test_an_outage_of_postgres_is_logged_once_and_work_resumes_after_it(
    loops: LoopFactory, postgres_url: str
) -> None:
    queue = RecordingQueue()

    async with Proxy(postgres_url) as proxy:
        engine = create_engine(proxy.url, application="tests", pool_size=6)
        with structlog.testing.capture_logs() as logged:

            async def is_noticed() -> bool:
                return any(line.get("server") == "Postgres" for line in logged)

            async with loops.running(queue, engine=engine):
                await wait_until(loops.has_daily_schedule, what="the first tick")
                await proxy.cut()
                await wait_until(is_noticed, what="the log line about the outage")
                run = await create_pending_run(loops.sessions)
                await proxy.restore()
                await queue.wait_until_sent(run.id)
        await engine.dispose()

    events = [line["event"] for line in logged if line.get("server") == "Postgres"]
    assert events == ["server unavailable; retrying", "server available again"]
    assert not [line for line in logged if line["log_level"] == "error"]


async def test_a_transaction_does_not_wait_long_for_a_lock(loops: LoopFactory) -> None:
    database = TransactionFactory(create_sessions(loops.engine, timeout=timedelta(minutes=1)))

    async with loops.engine.begin() as other:
        await other.execute(text("LOCK TABLE schedules"))
        async with asyncio.timeout(10):
            with pytest.raises(Exception, match="lock timeout"):
                async with database.transaction() as session:
                    await session.execute(text("SELECT 1 FROM schedules"))


async def test_a_loop_replaces_connections_that_have_become_silent(
    loops: LoopFactory, postgres_url: str
) -> None:
    queue, config = RecordingQueue(), replace(CONFIG, transaction_timeout=timedelta(seconds=1))

    async with Proxy(postgres_url) as proxy:
        engine = create_engine(
            proxy.url, application="tests", pool_size=14, ping_timeout=timedelta(seconds=0.5)
        )
        async with loops.running(queue, config=config, engine=engine):
            await wait_until(loops.has_daily_schedule, what="the first tick")
            # Of several steps, some are within a transaction at this moment.
            proxy.stall_open()
            run = await create_pending_run(loops.sessions)
            await queue.wait_until_sent(run.id)
        await dispose(engine)
