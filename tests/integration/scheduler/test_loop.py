"""The loop of one scheduler, and of two that run concurrently."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import Counter

from daybook_domain.runs.models import RunState, RunTrigger
from daybook_scheduler.metrics import SchedulerMetrics
from tests.integration.scheduler.loops import (
    CONFIG,
    LONG_TICK,
    LoopFactory,
    RecordingQueue,
    get_metric,
)
from tests.support.factories.runs import claim_run, create_pending_run, get_run, list_all_runs
from tests.support.factories.schedules import create_schedule, update_schedule_row
from tests.support.waiting import wait_until


async def test_a_due_fire_is_materialized_and_sent(loops: LoopFactory) -> None:
    queue, metrics = RecordingQueue(), SchedulerMetrics()
    async with loops.running(queue, metrics=metrics):
        await loops.make_daily_schedule_due()
        await wait_until(lambda: list_all_runs(loops.sessions), what="a run")
        (run,) = await list_all_runs(loops.sessions)
        await queue.wait_until_sent(run.id)

    found = await get_run(loops.sessions, run.id)
    assert (found.trigger, found.state) == (RunTrigger.SCHEDULE, RunState.QUEUED)
    assert run.scheduled_for is not None
    assert run.report_date == run.scheduled_for.date() - timedelta(days=1)
    assert found.queued_at is not None
    assert found.lease_until is not None
    assert found.lease_until - found.queued_at > CONFIG.queue_lease - timedelta(seconds=1)
    assert get_metric(metrics, "fires_total", outcome="run") == 1
    assert get_metric(metrics, "dispatched_total", outcome="sent") == 1
    assert get_metric(metrics, "dispatch_lag_seconds_count") == 1
    assert get_metric(metrics, "ticks_total", step="materialise", outcome="ok") > 0


async def test_a_fire_is_dispatched_at_its_due_time_and_not_at_the_next_tick(
    loops: LoopFactory,
) -> None:
    now = datetime.now(UTC)
    await create_schedule(loops.sessions, "soon", now=now)
    await update_schedule_row(loops.sessions, "soon", next_fire_at=now + timedelta(seconds=2))
    queue = RecordingQueue()
    async with loops.running(queue, config=LONG_TICK):
        (run,) = await wait_until(lambda: list_all_runs(loops.sessions), what="a run")
        await queue.wait_until_sent(run.id)

    assert run.scheduled_for is not None
    assert run.created_at >= run.scheduled_for


async def test_two_schedulers_send_one_run_for_each_fire(loops: LoopFactory) -> None:
    first, second = RecordingQueue(), RecordingQueue()
    metrics = [SchedulerMetrics(), SchedulerMetrics()]

    async def is_defined_by_both() -> bool:
        return all(get_metric(m, "ticks_total", step="define", outcome="ok") for m in metrics)

    async def is_all_sent() -> bool:
        return len(first.sent) + len(second.sent) >= 5

    async with (
        loops.running(first, metrics=metrics[0]),
        loops.running(second, metrics=metrics[1]),
    ):
        # A later definition would reset the due time and the overlap policy.
        await wait_until(is_defined_by_both, what="the definition of the daily schedule")
        await loops.make_daily_schedule_due(nights=5)
        await wait_until(is_all_sent, what="five runs")

    runs = await list_all_runs(loops.sessions)
    assert sorted([*first.sent, *second.sent]) == sorted(run.id for run in runs)
    assert len({run.report_date for run in runs}) == len(runs) == 5


async def test_a_notification_leads_to_a_dispatch_before_the_next_tick(loops: LoopFactory) -> None:
    queue = RecordingQueue()
    async with loops.running(queue, config=LONG_TICK):
        await wait_until(loops.is_listening, what="listening")
        run = await create_pending_run(loops.sessions)
        await queue.wait_until_sent(run.id)


async def test_a_terminated_listen_connection_is_replaced(loops: LoopFactory) -> None:
    queue = RecordingQueue()
    async with loops.running(queue, config=LONG_TICK):
        await wait_until(loops.is_listening, what="listening")
        await loops.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query ILIKE 'LISTEN %'"
        )
        await wait_until(loops.is_listening, what="listening again")
        run = await create_pending_run(loops.sessions)
        await queue.wait_until_sent(run.id)


async def test_a_send_that_blocks_does_not_delay_the_other_steps(loops: LoopFactory) -> None:
    abandoned = await claim_run(loops.sessions, day=datetime(2026, 1, 1, tzinfo=UTC).date())
    blocked = await create_pending_run(loops.sessions)
    queue = RecordingQueue()
    queue.unblocked.clear()

    async def is_done() -> bool:
        runs = await list_all_runs(loops.sessions)
        fired = [run for run in runs if run.trigger == RunTrigger.SCHEDULE]
        (found,) = (run for run in runs if run.id == abandoned.id)
        return bool(fired) and found.state != RunState.RUNNING

    async with loops.running(queue):
        await queue.wait_until_attempted()
        await loops.make_daily_schedule_due()
        await wait_until(is_done, what="a materialized fire and a reaped run")
        assert (await get_run(loops.sessions, blocked.id)).state == RunState.QUEUED
        queue.unblocked.set()


async def test_a_stopped_loop_does_not_wait_for_a_send_that_blocks(loops: LoopFactory) -> None:
    await create_pending_run(loops.sessions)
    queue, stop = RecordingQueue(), asyncio.Event()
    queue.unblocked.clear()
    task = asyncio.create_task(loops.create(queue).run(stop))
    await queue.wait_until_attempted()
    stop.set()

    await asyncio.wait_for(task, timeout=8)


async def test_a_bug_in_the_loop_itself_ends_the_process(loops: LoopFactory) -> None:
    """An error of a step is handled; one of the code around it must not go unnoticed."""
    metrics = SchedulerMetrics()
    metrics.ticks = Counter("broken", "Lacks a label.", ["step"], registry=None)

    async with asyncio.timeout(10):
        with pytest.raises(ValueError, match="label"):
            await loops.create(RecordingQueue(), metrics=metrics).run(asyncio.Event())
