"""Runs whose worker is killed, paused or stopped during the build."""

import asyncio
import signal
from datetime import timedelta

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
    """Verify that the fence refuses the commit, with every other guard out of the way.

    With a lease of an hour, neither a heartbeat nor the server's idle timeout ends the build of the
    paused worker: it continues after its run was reaped and claimed by another worker. The clock of
    the database is moved past the lease, so that the test need not wait for it.
    """
    lease = timedelta(hours=1)
    await prepare_day(stack)
    async with blocked_build(stack):
        run_id = await stack.request_run(DAY)
        paused = await stack.start_worker(DAYBOOK_LEASE_SECONDS=str(lease // timedelta(seconds=1)))
        await wait_until_blocked(stack)
        paused.send(signal.SIGSTOP)
        lease_until = (await stack.get_run(run_id)).lease_until
        assert lease_until is not None
        await stack.clock.set(lease_until)
        await stack.start_worker()
        await stack.wait_for_state(run_id, RunState.RUNNING, attempt=2)
    claimed = await stack.get_run(run_id)
    # The new worker waits for the date, which the transaction of the paused one still holds.
    assert await stack.find_day(DAY) is None

    paused.send(signal.SIGCONT)

    async def refused() -> bool:
        return f"Run {run_id} lost its lease during the build; nothing was written." in (
            paused.read_log()
        )

    await wait_until(refused, what="the refusal of the commit")
    run = await stack.wait_for_state(run_id, RunState.SUCCEEDED)
    assert (run.attempt, run.fence) == (2, claimed.fence)
    assert run.worker == claimed.worker
    day = await stack.find_day(DAY)
    assert day is not None
    assert (day.revision, day.last_run_id) == (1, run_id)
    assert await stack.read_report(DAY) == await stack.compute_expected_report(DAY)
    assert await asyncio.to_thread(paused.stop) == 0
    assert "report built" not in paused.read_log()


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
