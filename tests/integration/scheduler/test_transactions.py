"""Transactions of the scheduler during an outage of Postgres."""

import structlog

from daybook_platform.postgres.engine import create_engine
from tests.integration.scheduler.loops import (
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
