"""Steps of the scheduler: reconciliation, broken schedules, and backfills."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial

import structlog

from daybook_domain.backfills.service import RequestedBackfill
from daybook_domain.reports.build import build_day
from daybook_domain.reports.business_day import business_day
from daybook_domain.reports.models import ReportDay
from daybook_domain.runs import claims
from daybook_domain.runs.models import RunState, RunTrigger
from daybook_scheduler.metrics import SchedulerMetrics
from tests.integration.scheduler.loops import (
    CONFIG,
    LONG_TICK,
    LoopFactory,
    RecordingQueue,
    get_metric,
)
from tests.support.factories.backfills import get_backfill, march, request_backfill
from tests.support.factories.runs import LEASE, list_all_runs
from tests.support.factories.schedules import create_schedule, update_schedule_row
from tests.support.waiting import wait_until


async def test_the_latest_sealed_days_are_rebuilt_to_include_late_orders(
    loops: LoopFactory,
) -> None:
    now = datetime.now(UTC)
    today = now.date()
    async with loops.sessions.begin() as session:
        session.add_all(
            ReportDay(
                report_date=today - timedelta(days=days),
                revision=1,
                orders_count=0,
                products_count=0,
                digest="0" * 16,
                data_through=now,
                built_at=now,
                sealed_at=now - timedelta(minutes=5),
            )
            for days in (1, 3, 4)
        )
    queue, metrics = RecordingQueue(), SchedulerMetrics()

    async def is_requested() -> bool:
        return len(queue.sent) == 2

    async with loops.running(queue, metrics=metrics):
        await wait_until(is_requested, what="two rebuilds")

    runs = await list_all_runs(loops.sessions)
    assert [run.report_date for run in runs] == [
        today - timedelta(days=3),
        today - timedelta(days=1),
    ]
    assert {run.trigger for run in runs} == {RunTrigger.RECONCILE}
    assert get_metric(metrics, "reconciled_total", outcome="requested") == 2


async def test_a_stale_day_of_any_age_is_rebuilt_although_recent_days_are_not(
    loops: LoopFactory,
) -> None:
    stale_day, since = date(1990, 1, 1), datetime.now(UTC) - timedelta(minutes=5)
    async with loops.sessions.begin() as session:
        session.add_all(
            ReportDay(
                report_date=day,
                revision=1,
                orders_count=0,
                products_count=0,
                digest="0" * 16,
                data_through=since,
                built_at=since,
                sealed_at=since,
                stale_since=since if day == stale_day else None,
            )
            for day in (stale_day, since.date() - timedelta(days=1))
        )
    queue = RecordingQueue()

    async with loops.running(queue, config=replace(CONFIG, reconcile_days=0)):
        await queue.wait_until_attempted()

    (run,) = await list_all_runs(loops.sessions)
    assert (run.report_date, run.trigger) == (stale_day, RunTrigger.RECONCILE)


async def test_a_schedule_that_cannot_fire_is_logged_once_and_does_not_block_others(
    loops: LoopFactory,
) -> None:
    queue, metrics = RecordingQueue(), SchedulerMetrics()

    async def has_failed_twice() -> bool:
        return get_metric(metrics, "fires_total", outcome="failed") >= 2

    with structlog.testing.capture_logs() as logged:
        async with loops.running(queue, metrics=metrics):
            now = datetime.now(UTC)
            await create_schedule(loops.sessions, "broken", now=now)
            await update_schedule_row(loops.sessions, "broken", cron="nonsense", next_fire_at=now)
            await wait_until(has_failed_twice, what="two failures")
            await loops.make_daily_schedule_due()
            await wait_until(
                lambda: list_all_runs(loops.sessions), what="the run of the other schedule"
            )

    broken = [line for line in logged if line.get("schedule") == "broken"]
    assert [line["event"] for line in broken] == [
        "schedule cannot fire; the reason is recorded on it"
    ]


async def test_a_backfill_continues_at_the_end_of_a_build_and_not_at_the_next_tick(
    loops: LoopFactory,
) -> None:
    queue, metrics = RecordingQueue(), SchedulerMetrics()
    today = datetime.now(UTC).date()
    first, last = today - timedelta(days=3), today - timedelta(days=1)
    backfill = await request_backfill(
        loops.sessions, first, last, now=datetime.now(UTC), concurrency=1
    )
    async with loops.running(queue, config=LONG_TICK, metrics=metrics):
        for sends in range(1, 4):
            await queue.wait_until_attempted(sends)
            run_id = queue.sent[-1]
            async with loops.sessions.begin() as session:
                run = await claims.claim_next(
                    session, run_id, worker="w", now=datetime.now(UTC), lease=LEASE
                )
            assert run is not None
            async with loops.engine.begin() as connection:
                day = business_day(run.report_date, timezone="UTC")
                await build_day(connection, day=day, run_id=run_id, fence=run.fence)
        await wait_until(partial(_has_finished, loops, backfill), what="the end of the backfill")

    runs = await list_all_runs(loops.sessions)
    assert [run.state for run in runs] == [RunState.SUCCEEDED] * 3
    assert get_metric(metrics, "backfilled_total") == 3


async def _has_finished(loops: LoopFactory, backfill: RequestedBackfill) -> bool:
    return (await get_backfill(loops.sessions, backfill)).finished_at is not None


async def test_two_schedulers_share_the_dates_of_a_backfill(loops: LoopFactory) -> None:
    first, second = RecordingQueue(), RecordingQueue()
    await request_backfill(loops.sessions, march(1), march(20), concurrency=20)

    async def is_all_sent() -> bool:
        return len(first.sent) + len(second.sent) >= 20

    async with loops.running(first), loops.running(second):
        await wait_until(is_all_sent, what="a run of each date")

    runs = [
        run for run in await list_all_runs(loops.sessions) if run.trigger == RunTrigger.BACKFILL
    ]
    assert sorted([*first.sent, *second.sent]) == sorted(run.id for run in runs)
    assert len({run.report_date for run in runs}) == len(runs) == 20
