"""The heartbeat of a build: an extended lease, and a lost one."""

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain import clock
from daybook_domain.runs import leases
from daybook_domain.runs.models import RunState
from daybook_domain.runs.tasks import BuildReport
from daybook_platform.postgres.sessions import Sessions
from daybook_worker.metrics import WorkerMetrics
from tests.integration.worker.builders import blocked_build, count_finished_runs, create_builder
from tests.integration.worker.runs import (
    blocked_builds,
    count_blocked_builds,
    failing_first_extension,
    find_report_day,
    get_run,
    queue_run,
    reaping,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("clean")


async def test_a_long_build_extends_its_lease_and_reports_its_running_time(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id = await queue_run(sessions)
    builder = create_builder(engine, lease_seconds=0.6)

    async with (
        blocked_builds(engine),
        blocked_build(engine, builder, BuildReport(run_id=run_id)) as build,
    ):
        first = (await get_run(sessions, run_id)).lease_until
        assert first is not None

        async def is_extended() -> bool:
            run = await get_run(sessions, run_id)
            assert run.state == RunState.RUNNING
            return run.lease_until is not None and run.lease_until > first + timedelta(seconds=1)

        await wait_until(is_extended, what="an extended lease")
        assert ((await get_run(sessions, run_id)).progress or "").startswith("running for")

    await build
    assert (await get_run(sessions, run_id)).state == RunState.SUCCEEDED


async def test_a_build_that_outlasts_its_lease_is_not_reaped(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """Not even when an extension fails: a lease lasts for several."""
    run_id = await queue_run(sessions)
    builder = create_builder(engine, lease_seconds=3)

    async with (
        reaping(sessions),
        failing_first_extension(engine),
        blocked_builds(engine),
        blocked_build(engine, builder, BuildReport(run_id=run_id)) as build,
    ):
        first = (await get_run(sessions, run_id)).lease_until
        assert first is not None

        async def has_expired() -> bool:
            async with sessions() as session:
                return await clock.now(session) > first + timedelta(seconds=0.5)

        await wait_until(has_expired, what="the end of the first lease")
        run = await get_run(sessions, run_id)
        assert (run.state, run.attempt, run.fence) == (RunState.RUNNING, 1, 1)
    await build

    run = await get_run(sessions, run_id)
    assert (run.state, run.attempt, run.fence) == (RunState.SUCCEEDED, 1, 1)


async def test_a_worker_that_lost_its_run_cancels_the_statement_on_the_server(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id, metrics = await queue_run(sessions), WorkerMetrics()
    builder = create_builder(engine, lease_seconds=0.6, metrics=metrics)

    async with (
        blocked_builds(engine),
        blocked_build(engine, builder, BuildReport(run_id=run_id)) as build,
    ):
        async with sessions.begin() as session:
            later = await clock.now(session) + timedelta(hours=1)
            assert len(await leases.reap(session, now=later, limit=1)) == 1
        await build
        assert await count_blocked_builds(engine) == 0

    assert (await get_run(sessions, run_id)).state == RunState.PENDING
    assert await find_report_day(sessions) is None
    assert count_finished_runs(metrics.registry) == {"lost": 1}
