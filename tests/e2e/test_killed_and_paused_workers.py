"""Runs whose worker is killed, paused or stopped during the build."""

import asyncio
import signal

import pytest

from daybook_domain.runs.models import RunState
from tests.e2e.blocked_builds import (
    DAY,
    blocked_build,
    prepare_day,
    start_blocked_run,
    wait_until_blocked,
)
from tests.e2e.stack import Stack
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq


async def test_a_worker_killed_during_a_build_costs_one_attempt_and_nothing_else(
    stack: Stack,
) -> None:
    await prepare_day(stack)
    async with blocked_build(stack):
        run_id, worker = await start_blocked_run(stack)
        worker.kill()
        await stack.start_worker()
    run = await stack.wait_for_state(run_id, RunState.SUCCEEDED)

    assert run.attempt == 2
    day = await stack.find_day(DAY)
    assert day is not None
    assert day.revision == 1
    assert await stack.read_report(DAY) == await stack.compute_expected_report(DAY)


async def test_a_worker_paused_past_its_lease_cannot_commit(stack: Stack) -> None:
    await prepare_day(stack)
    async with blocked_build(stack):
        run_id, paused = await start_blocked_run(stack)
        paused.send(signal.SIGSTOP)
        await stack.start_worker()
    run = await stack.wait_for_state(run_id, RunState.SUCCEEDED, seconds=60)
    assert run.attempt == 2
    before = await stack.read_report(DAY)

    paused.send(signal.SIGCONT)

    async def noticed() -> bool:
        # It notices the closed connection or the lost lease, whichever is first.
        return any(words in paused.read_log() for words in ("build failed", "run lost"))

    await wait_until(noticed, what="the end of the build in the resumed worker")
    again = await stack.get_run(run_id)
    assert (again.state, again.attempt, again.fence) == (run.state, run.attempt, run.fence)
    day = await stack.find_day(DAY)
    assert day is not None
    assert day.revision == 1
    assert await stack.read_report(DAY) == before == await stack.compute_expected_report(DAY)
    assert await asyncio.to_thread(paused.stop) == 0


async def test_a_worker_stopped_during_a_build_releases_its_run_to_another(stack: Stack) -> None:
    await prepare_day(stack)
    async with blocked_build(stack):
        run_id = await stack.request_run(DAY)
        leaving = await stack.start_worker(DAYBOOK_DRAIN_SECONDS="1")
        await wait_until_blocked(stack)
        assert await asyncio.to_thread(leaving.stop) == 0
        released = await stack.get_run(run_id)
        assert released.state in {RunState.PENDING, RunState.QUEUED}
        await stack.start_worker()
    run = await stack.wait_for_state(run_id, RunState.SUCCEEDED)

    assert run.attempt == 1
    assert await stack.read_report(DAY) == await stack.compute_expected_report(DAY)
