"""Reports of errors that occur in steps."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import structlog

from daybook_platform.outage_log import OutageLog
from daybook_scheduler.metrics import SchedulerMetrics
from daybook_scheduler.step_runner import Step, StepRunner
from tests.integration.scheduler.loops import (
    CONFIG,
    LoopFactory,
    RecordingQueue,
    get_metric,
)
from tests.support.waiting import wait_until


async def test_a_migration_that_is_missing_is_reported_once_whichever_step_needs_it(
    loops: LoopFactory,
) -> None:
    queue, metrics = RecordingQueue(), SchedulerMetrics()

    async def has_failed_twice() -> bool:
        return get_metric(metrics, "ticks_total", step="prune", outcome="failed") >= 2

    await loops.execute("ALTER TABLE ledger_beginnings RENAME TO renamed_by_the_test")
    try:
        with structlog.testing.capture_logs() as logged:
            async with loops.running(queue, config=replace(CONFIG, ledger_days=1), metrics=metrics):
                await wait_until(has_failed_twice, what="two failures")
    finally:
        await loops.execute("ALTER TABLE renamed_by_the_test RENAME TO ledger_beginnings")

    reported = [line for line in logged if "daybook migrate" in line["event"]]
    assert [line["step"] for line in reported] == ["prune"]
    assert "ledger_beginnings" in reported[0]["reason"]


async def test_a_step_that_fails_waits_before_its_next_attempt_also_when_it_is_woken() -> None:
    attempts = 0

    async def fail() -> None:
        nonlocal attempts
        attempts += 1
        raise ArithmeticError("simulated bug")

    step = Step("fail", fail)
    runner = StepRunner(
        [step], tick=timedelta(minutes=10), metrics=SchedulerMetrics(), outage=OutageLog("Postgres")
    )
    repeating = asyncio.create_task(runner.repeat(step))
    for _ in range(100):
        # Each iteration of the event loop would be enough for an attempt without a delay.
        await asyncio.sleep(0)
        step.wake.set()
    assert attempts == 1
    runner.stop()
    await repeating
