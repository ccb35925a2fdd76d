"""Does a backfill come to its end whatever is killed, and keep nobody waiting?"""

import asyncio
from datetime import date, timedelta

import httpx
import pytest
from sqlalchemy import text

from daybook_domain.reports.business_day import business_day
from daybook_domain.runs.models import RunState, RunTrigger
from tests.e2e.stack import Stack
from tests.support.waiting import until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240)]

FIRST, LAST = date(2026, 10, 1), date(2026, 11, 22)
DAYS = [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)]
NIGHT = date(2026, 11, 23)


async def ask(url: str, **more: object) -> str:
    async with httpx.AsyncClient(base_url=url) as client:
        asked = {"from": f"{FIRST}", "to": f"{LAST}", **more}
        answer = await client.post("/report/runs", json=asked)
    assert answer.status_code == 202, answer.text
    return f"{url}{answer.headers['location']}"


async def until_done(where: str, *, days: int) -> dict[str, object]:
    """Wait until so many dates of the backfill are done, and return what is told of it."""
    async with httpx.AsyncClient() as client:
        found: dict[str, object] = {}

        async def done() -> bool:
            nonlocal found
            answer = await client.get(where)
            # The database may be on its way back.
            found = answer.json() if answer.is_success else {"done": 0}
            assert isinstance(found["done"], int)
            return found["done"] >= days

        await until(done, seconds=120, what=f"{days} dates done")
    return found


async def test_whatever_is_killed_each_date_is_built_in_the_end(stack: Stack) -> None:
    for day in DAYS:
        span = business_day(day, timezone=stack.timezone)
        await stack.add_orders(span.starts_at, span.ends_at - timedelta(seconds=1))
    await stack.clock.set(business_day(NIGHT, timezone=stack.timezone).starts_at)
    calm = {"DAYBOOK_RECONCILE_DAYS": "0"}
    (scheduler, other, worker, _, (_, url)) = await asyncio.gather(
        stack.scheduler(**calm),
        stack.scheduler(**calm),
        stack.worker(),
        stack.worker(),
        stack.api(),
    )

    where = await ask(url, concurrency=6)
    await until_done(where, days=5)
    worker.kill()
    await until_done(where, days=12)
    scheduler.kill()
    await stack.worker()
    await until_done(where, days=20)
    await asyncio.to_thread(stack.rabbitmq.stop)
    await asyncio.to_thread(stack.rabbitmq.start)
    await until_done(where, days=35)
    other.kill()
    await stack.scheduler(**calm)
    told = await until_done(where, days=len(DAYS))

    assert told["outcomes"] == {"succeeded": len(DAYS)}
    runs = await stack.runs(trigger=RunTrigger.BACKFILL)
    assert sorted(run.report_date for run in runs) == DAYS
    assert {run.state for run in runs} == {RunState.SUCCEEDED}
    for day in DAYS:
        line = await stack.day(day)
        assert line is not None
        assert (line.revision, line.sealed_at is not None) == (1, True)
        assert await stack.rows(day) == await stack.expected(day)


async def test_the_nightly_run_waits_behind_no_message_of_a_backfill(stack: Stack) -> None:
    """Fifty runs of a backfill are in RabbitMQ before the one of the night, and no worker is."""
    span = business_day(NIGHT, timezone=stack.timezone)
    await stack.clock.set(span.ends_at - timedelta(seconds=90))
    _, (_, url) = await asyncio.gather(
        stack.scheduler(DAYBOOK_RECONCILE_DAYS="0", DAYBOOK_QUEUE_LEASE_SECONDS="600"), stack.api()
    )
    await ask(url, concurrency=50)

    async def queued(trigger: RunTrigger, count: int) -> bool:
        runs = await stack.runs(trigger=trigger)
        return len(runs) >= count and all(run.state == RunState.QUEUED for run in runs)

    await until(lambda: queued(RunTrigger.BACKFILL, 50), what="fifty messages in the queue")
    await stack.clock.set(span.ends_at)
    await until(lambda: queued(RunTrigger.SCHEDULE, 1), what="the message of the night behind them")

    await stack.worker(DAYBOOK_CONCURRENCY="1")
    await stack.until_sealed(NIGHT)
    await until_all_end(stack)

    async with stack.sessions() as session:
        order = await session.execute(
            text("SELECT trigger FROM report_runs WHERE state = 'succeeded' ORDER BY finished_at")
        )
        first, *others = order.scalars()
    assert first == "schedule"
    assert others == ["backfill"] * len(DAYS)


async def until_all_end(stack: Stack) -> None:
    """Wait until each date of the range has its run, and all have ended."""

    async def ended() -> bool:
        runs = await stack.runs(trigger=RunTrigger.BACKFILL)
        return len(runs) == len(DAYS) and all(run.state == RunState.SUCCEEDED for run in runs)

    await until(ended, seconds=120, what="the end of the backfill")
