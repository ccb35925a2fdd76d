"""Backfills: they finish although processes are killed, and do not delay the nightly run."""

import asyncio
from datetime import date, timedelta

import httpx
import pytest
from sqlalchemy import text

from daybook_domain.reports.business_day import business_day
from daybook_domain.runs.models import RunState, RunTrigger
from tests.e2e.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240)]

FIRST, LAST = date(2026, 10, 1), date(2026, 11, 22)
DAYS = [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)]
NIGHT = date(2026, 11, 23)


async def request_backfill(url: str, **more: object) -> str:
    """Request the backfill of `FIRST` to `LAST`, and return its URL."""
    async with httpx.AsyncClient(base_url=url) as client:
        body = {"from": f"{FIRST}", "to": f"{LAST}", **more}
        response = await client.post("/report/runs", json=body)
    assert response.status_code == 202, response.text
    return f"{url}{response.headers['location']}"


async def wait_until_done(location: str, *, days: int) -> dict[str, object]:
    """Wait until `days` dates of the backfill are done, and return the backfill."""
    async with httpx.AsyncClient() as client:
        found: dict[str, object] = {}

        async def done() -> bool:
            nonlocal found
            response = await client.get(location)
            # The database may be restarting.
            found = response.json() if response.is_success else {"done": 0}
            assert isinstance(found["done"], int)
            return found["done"] >= days

        await wait_until(done, seconds=120, what=f"{days} dates done")
    return found


async def test_a_backfill_builds_each_date_once_although_processes_are_killed(stack: Stack) -> None:
    for day in DAYS:
        span = business_day(day, timezone=stack.timezone)
        await stack.add_orders(span.starts_at, span.ends_at - timedelta(seconds=1))
    await stack.clock.set(business_day(NIGHT, timezone=stack.timezone).starts_at)
    no_reconciliation = {"DAYBOOK_RECONCILE_DAYS": "0"}
    (scheduler, other, worker, _, (_, url)) = await asyncio.gather(
        stack.start_scheduler(**no_reconciliation),
        stack.start_scheduler(**no_reconciliation),
        stack.start_worker(),
        stack.start_worker(),
        stack.start_api(),
    )

    location = await request_backfill(url, concurrency=6)
    await wait_until_done(location, days=5)
    worker.kill()
    await wait_until_done(location, days=12)
    scheduler.kill()
    await stack.start_worker()
    await wait_until_done(location, days=20)
    await asyncio.to_thread(stack.rabbitmq.stop)
    await asyncio.to_thread(stack.rabbitmq.start)
    await wait_until_done(location, days=35)
    other.kill()
    await stack.start_scheduler(**no_reconciliation)
    backfill = await wait_until_done(location, days=len(DAYS))

    assert backfill["outcomes"] == {"succeeded": len(DAYS)}
    runs = await stack.list_runs(trigger=RunTrigger.BACKFILL)
    assert sorted(run.report_date for run in runs) == DAYS
    assert {run.state for run in runs} == {RunState.SUCCEEDED}
    for day in DAYS:
        built = await stack.find_day(day)
        assert built is not None
        assert (built.revision, built.sealed_at is not None) == (1, True)
        assert await stack.read_report(day) == await stack.compute_expected_report(day)


async def test_the_nightly_run_is_built_before_fifty_queued_runs_of_a_backfill(
    stack: Stack,
) -> None:
    """Fifty messages of a backfill are queued before the nightly one, and no worker is running."""
    span = business_day(NIGHT, timezone=stack.timezone)
    await stack.clock.set(span.ends_at - timedelta(seconds=90))
    _, (_, url) = await asyncio.gather(
        stack.start_scheduler(DAYBOOK_RECONCILE_DAYS="0", DAYBOOK_QUEUE_LEASE_SECONDS="600"),
        stack.start_api(),
    )
    await request_backfill(url, concurrency=50)

    async def queued(trigger: RunTrigger, count: int) -> bool:
        runs = await stack.list_runs(trigger=trigger)
        return len(runs) >= count and all(run.state == RunState.QUEUED for run in runs)

    await wait_until(lambda: queued(RunTrigger.BACKFILL, 50), what="fifty messages in the queue")
    await stack.clock.set(span.ends_at)
    await wait_until(lambda: queued(RunTrigger.SCHEDULE, 1), what="the nightly message behind them")

    await stack.start_worker(DAYBOOK_CONCURRENCY="1")
    await stack.wait_until_sealed(NIGHT)
    await wait_until_all_succeeded(stack)

    async with stack.sessions() as session:
        order = await session.execute(
            text("SELECT trigger FROM report_runs WHERE state = 'succeeded' ORDER BY finished_at")
        )
        first, *others = order.scalars()
    assert first == "schedule"
    assert others == ["backfill"] * len(DAYS)


async def wait_until_all_succeeded(stack: Stack) -> None:
    """Wait until each date of the range has a run, and all have succeeded."""

    async def all_succeeded() -> bool:
        runs = await stack.list_runs(trigger=RunTrigger.BACKFILL)
        return len(runs) == len(DAYS) and all(run.state == RunState.SUCCEEDED for run in runs)

    await wait_until(all_succeeded, seconds=120, what="the end of the backfill")
