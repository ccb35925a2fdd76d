"""The nightly report through the real services: one sealed report of the right day per night."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest

from daybook_domain.reports.business_day import business_day
from daybook_domain.runs.models import RunState, RunTrigger
from tests.e2e.stack import Stack
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq

SECOND = timedelta(seconds=1)


def midnight_after(day: date, stack: Stack) -> datetime:
    """Return the instant at which the business day of `day` ends."""
    return business_day(day, timezone=stack.timezone).ends_at


async def test_the_fire_at_midnight_reports_the_day_that_ended(stack: Stack) -> None:
    day = date(2026, 11, 23)
    span = business_day(day, timezone=stack.timezone)
    await stack.add_orders(
        span.starts_at - SECOND / 1_000_000, span.starts_at, quantities=(1, 2, 3)
    )
    await stack.add_orders(span.ends_at - SECOND / 1_000_000, span.ends_at, quantities=())
    await stack.clock.set(span.ends_at - timedelta(hours=1))
    _, _, (_, url) = await asyncio.gather(
        stack.start_scheduler(), stack.start_worker(), stack.start_api()
    )

    await stack.clock.set(span.ends_at - SECOND)

    built = await stack.wait_until_sealed(day)

    assert built.orders_count == 2
    assert built.sealed_at is not None
    assert built.sealed_at >= span.ends_at
    assert await stack.read_report(day) == await stack.compute_expected_report(day)
    async with httpx.AsyncClient(base_url=url) as client:
        response = await client.get("/report", params={"date": day.isoformat()})
    assert response.headers["Daybook-Report-State"] == "sealed"
    rows = response.json()
    assert [(row["order_id"], row["count_product"]) for row in rows] == [(2, 6), (3, 0)]
    assert {row["report_at"] for row in rows} == {"2026-11-23"}


@pytest.mark.parametrize(
    "day", [date(2027, 3, 28), date(2027, 10, 31)], ids=["clocks forward", "clocks back"]
)
async def test_a_day_on_which_the_clocks_change_is_reported_once(stack: Stack, day: date) -> None:
    await stack.clock.set(midnight_after(day - timedelta(days=1), stack) - timedelta(hours=1))
    await asyncio.gather(stack.start_scheduler(), stack.start_worker())
    await stack.clock.set(midnight_after(day - timedelta(days=1), stack) - SECOND)
    await stack.wait_until_sealed(day - timedelta(days=1))

    await stack.clock.set(midnight_after(day, stack) - SECOND)
    await stack.wait_until_sealed(day)

    runs = await stack.list_runs()
    assert [run.report_date for run in runs] == [day - timedelta(days=1), day]
    assert [run.state for run in runs] == [RunState.SUCCEEDED] * 2


async def test_each_minute_has_one_run_although_services_are_replaced(stack: Stack) -> None:
    """Two schedulers and two workers; one of each kind is replaced between any two fires."""
    # A reconciliation would be due with the third fire, which would then join it or not, depending
    # on timing.
    every_minute = {"DAYBOOK_DAILY_CRON": "* * * * *", "DAYBOOK_RECONCILE_DAYS": "0"}
    start = datetime(2026, 11, 24, 9, 0, 0, tzinfo=UTC)
    # Early enough before the first fire for all services to start.
    await stack.clock.set(start + SECOND)
    schedulers = await asyncio.gather(*(stack.start_scheduler(**every_minute) for _ in range(2)))
    workers = await asyncio.gather(*(stack.start_worker() for _ in range(2)))

    for minute in range(1, 5):
        await stack.clock.set(start + timedelta(minutes=minute) - SECOND / 2)
        due = start + timedelta(minutes=minute)
        if minute % 2:
            schedulers.pop(0).kill()
            workers.pop(0).stop()
            scheduler, worker = await asyncio.gather(
                stack.start_scheduler(**every_minute), stack.start_worker()
            )
            schedulers.append(scheduler)
            workers.append(worker)
        else:
            workers.pop(0).kill()
            workers.append(await stack.start_worker())

        async def fired(due: datetime = due) -> bool:
            return any(
                run.scheduled_for == due and run.state == RunState.SUCCEEDED
                for run in await stack.list_runs()
            )

        await wait_until(fired, seconds=30, what=f"the run due {due}")

    runs = await stack.list_runs()
    assert [run.scheduled_for for run in runs] == [
        start + timedelta(minutes=minute) for minute in range(1, 5)
    ]
    assert {run.state for run in runs} == {RunState.SUCCEEDED}
    assert {run.report_date for run in runs} == {date(2026, 11, 23)}


async def test_three_nights_without_a_scheduler_are_caught_up_in_order(stack: Stack) -> None:
    day = date(2026, 11, 20)
    await stack.clock.set(midnight_after(day, stack) - timedelta(hours=1))
    scheduler, _ = await asyncio.gather(stack.start_scheduler(), stack.start_worker())
    scheduler.stop()

    await stack.clock.set(midnight_after(day + timedelta(days=2), stack) + timedelta(hours=9))
    await stack.start_scheduler()

    for nights in range(3):
        await stack.wait_until_sealed(day + timedelta(days=nights))
    runs = await stack.list_runs()
    assert [run.report_date for run in runs] == [day + timedelta(days=n) for n in range(3)]
    assert [run.scheduled_for for run in runs] == [
        midnight_after(day + timedelta(days=n), stack) for n in range(3)
    ]


async def test_an_order_that_commits_after_sealing_enters_a_new_revision(stack: Stack) -> None:
    day = date(2026, 11, 23)
    span = business_day(day, timezone=stack.timezone)
    await stack.add_orders(span.starts_at)
    await stack.clock.set(span.ends_at - timedelta(hours=1))
    await asyncio.gather(stack.start_scheduler(), stack.start_worker())
    async with stack.sessions.begin() as session:
        # Written before midnight, committed after the day was sealed.
        await stack.add_orders_in(session, span.ends_at - SECOND)
        await stack.clock.set(span.ends_at - SECOND)
        sealed = await stack.wait_until_sealed(day)
        assert sealed.orders_count == 1
    await stack.clock.set(span.ends_at + timedelta(minutes=3))

    rebuilt = await stack.wait_until_sealed(day, revision=2)

    assert rebuilt.orders_count == 2
    assert await stack.read_report(day) == await stack.compute_expected_report(day)
    rebuilds = [run for run in await stack.list_runs(trigger=RunTrigger.RECONCILE) if run.added]
    assert [(run.added, run.changed, run.removed) for run in rebuilds] == [(1, 0, 0)]
