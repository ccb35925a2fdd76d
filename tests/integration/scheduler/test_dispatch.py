"""Dispatch of runs: locked rows, an unavailable broker, crashes and stops."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
import structlog

from daybook_domain.postgres_errors import is_outage
from daybook_domain.runs.models import ReportRun, RunState
from daybook_platform.postgres.engine import create_engine, dispose
from daybook_scheduler.dispatch import MAX_CONCURRENT_SENDS
from daybook_scheduler.metrics import SchedulerMetrics
from tests.integration.scheduler.loops import (
    CONFIG,
    LONG_TICK,
    LoopFactory,
    RecordingQueue,
    get_metric,
)
from tests.support.factories.runs import (
    create_pending_run,
    get_run,
    list_all_runs,
    queue_run,
    request_run,
)
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until


@pytest.mark.parametrize("is_unavailable", [False, True])
async def test_the_result_of_a_dispatch_is_recorded_once_the_row_is_unlocked(
    loops: LoopFactory, *, is_unavailable: bool
) -> None:
    """Another scheduler locks the row for a moment when it tries to claim the same run."""
    queue, metrics = RecordingQueue(), SchedulerMetrics()
    # The run is not reaped before the end of the test.
    config = replace(CONFIG, dispatch_lease=timedelta(minutes=2))
    queue.is_unavailable = is_unavailable
    queue.unblocked.clear()
    run = await create_pending_run(loops.sessions)

    async def is_dispatched() -> bool:
        outcome = "unsent" if is_unavailable else "sent"
        return get_metric(metrics, "dispatched_total", outcome=outcome) == 1

    async def is_some_ticks_later() -> bool:
        return get_metric(metrics, "ticks_total", step="dispatch", outcome="ok") > ticks + 5

    async def is_recorded() -> bool:
        found = await get_run(loops.sessions, run.id)
        left = found.lease_until and found.lease_until - datetime.now(UTC)
        return left is None if is_unavailable else bool(left and left > config.dispatch_lease)

    async with loops.running(queue, config=config, metrics=metrics):
        await queue.wait_until_attempted()
        async with loops.sessions.begin() as other_transaction:
            await other_transaction.get(ReportRun, run.id, with_for_update=True)
            queue.unblocked.set()
            await wait_until(is_dispatched)
            ticks = get_metric(metrics, "ticks_total", step="dispatch", outcome="ok")
            await wait_until(is_some_ticks_later, what="attempts to record the result")
            assert not await is_recorded()
        await wait_until(is_recorded, what="the recorded result")


async def test_more_runs_than_a_batch_are_sent_without_waiting_for_ticks(
    loops: LoopFactory,
) -> None:
    await loops.execute(
        "INSERT INTO report_runs (id, report_date, trigger, state, priority, attempt,"
        " max_attempts, available_at, fence) SELECT gen_random_uuid(), date '2020-01-01' + k,"
        " 'backfill', 'pending', 20, 0, 5, now(), 0 FROM generate_series(1, 1100) AS k"
    )
    queue = RecordingQueue()
    async with loops.running(queue, config=LONG_TICK):
        await queue.wait_until_sent(*[run.id for run in await list_all_runs(loops.sessions)])


async def test_a_run_that_the_broker_refuses_is_pending_again_and_sent_later(
    loops: LoopFactory,
) -> None:
    run = await create_pending_run(loops.sessions)
    queue, metrics = RecordingQueue(), SchedulerMetrics()
    queue.is_unavailable = True

    async def is_pending() -> bool:
        found = await get_run(loops.sessions, run.id)
        return queue.attempts > 0 and found.state == RunState.PENDING

    with structlog.testing.capture_logs() as logged:
        async with loops.running(queue, metrics=metrics):
            await wait_until(is_pending, what="the run to be pending again")
            queue.is_unavailable = False
            await queue.wait_until_sent(run.id)

    events = [line["event"] for line in logged if line.get("server") == "RabbitMQ"]
    assert events == ["server unavailable; retrying", "server available again"]
    assert get_metric(metrics, "dispatched_total", outcome="unsent") >= 1


async def test_an_unavailable_broker_is_tried_once_per_backoff_and_not_once_per_run(
    loops: LoopFactory,
) -> None:
    queue = RecordingQueue()
    queue.is_unavailable = True
    dispatcher = loops.create_dispatcher(queue)
    for day in range(1, 31):
        await create_pending_run(loops.sessions, day=datetime(2026, 1, day, tzinfo=UTC).date())

    await dispatcher.dispatch()
    first = queue.attempts
    for _ in range(5):
        await dispatcher.dispatch()

    assert first <= 10
    assert queue.attempts == first
    assert {run.state for run in await list_all_runs(loops.sessions)} == {RunState.PENDING}


async def test_an_unexpected_error_of_the_queue_loses_no_run(loops: LoopFactory) -> None:
    run = await create_pending_run(loops.sessions)
    queue = RecordingQueue()
    queue.is_broken = True

    await loops.create_dispatcher(queue).dispatch()

    assert (await get_run(loops.sessions, run.id)).state == RunState.PENDING


async def test_a_run_is_sent_again_after_a_crash_between_commit_and_publish(
    loops: LoopFactory,
) -> None:
    run = await create_pending_run(loops.sessions)
    crashing, queue = RecordingQueue(), RecordingQueue()
    crashing.unblocked.clear()
    task = asyncio.create_task(loops.create_dispatcher(crashing).dispatch())
    await crashing.wait_until_attempted()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert crashing.sent == []
    assert (await get_run(loops.sessions, run.id)).state == RunState.QUEUED

    await loops.execute("UPDATE report_runs SET lease_until = now() - interval '1 second'")
    metrics = SchedulerMetrics()
    async with loops.running(queue, metrics=metrics):
        await queue.wait_until_sent(run.id)

    assert get_metric(metrics, "reaped_total") == 1


async def test_a_stopped_dispatcher_finishes_active_sends_and_returns_the_other_runs_to_pending(
    loops: LoopFactory,
) -> None:
    for day in range(2 * MAX_CONCURRENT_SENDS):
        await create_pending_run(loops.sessions, day=date(2025, 1, 1) + timedelta(days=day))
    queue = RecordingQueue()
    queue.unblocked.clear()
    dispatcher = loops.create_dispatcher(queue)
    task = asyncio.create_task(dispatcher.dispatch())
    await queue.wait_until_attempted(MAX_CONCURRENT_SENDS)
    dispatcher.stop()
    queue.unblocked.set()
    await asyncio.wait_for(task, timeout=5)

    runs = await list_all_runs(loops.sessions)
    assert len(queue.sent) == MAX_CONCURRENT_SENDS
    assert {run.state for run in runs if run.id in queue.sent} == {RunState.QUEUED}
    assert {run.state for run in runs if run.id not in queue.sent} == {RunState.PENDING}


async def test_a_locked_run_does_not_block_the_dispatch_of_another(loops: LoopFactory) -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC).date()
    await create_pending_run(loops.sessions, day=day)
    unlocked = await create_pending_run(loops.sessions)
    queue = RecordingQueue()
    async with loops.sessions.begin() as other_transaction:
        await request_run(other_transaction, day=day)
        async with loops.running(queue):
            await queue.wait_until_sent(unlocked.id)


async def test_a_queued_run_whose_message_was_lost_is_sent_again(loops: LoopFactory) -> None:
    run = await queue_run(loops.sessions)
    queue = RecordingQueue()

    async with loops.running(queue):
        await queue.wait_until_sent(run.id)


async def test_the_result_of_a_dispatch_is_recorded_after_an_outage_of_postgres(
    loops: LoopFactory, postgres_url: str
) -> None:
    run = await create_pending_run(loops.sessions)
    queue = RecordingQueue()
    queue.unblocked.clear()

    async with Proxy(postgres_url) as proxy:
        engine = create_engine(proxy.url, application="tests", pool_size=2)
        dispatcher = LoopFactory(engine).create_dispatcher(queue)
        task = asyncio.create_task(dispatcher.dispatch())
        await queue.wait_until_attempted()
        await proxy.cut()
        queue.unblocked.set()
        with pytest.raises(Exception) as raised:  # noqa: PT011 # of several classes
            await task
        assert is_outage(raised.value)
        await proxy.restore()
        await dispatcher.dispatch()
        await dispose(engine)

    found = await get_run(loops.sessions, run.id)
    assert queue.sent == [run.id]
    assert found.queued_at is not None
    assert found.lease_until is not None
    assert found.lease_until - found.queued_at > CONFIG.queue_lease - timedelta(seconds=1)
