"""Builds of claimed runs, and the effect of a stopping worker on them."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.contextvars import merge_contextvars

from daybook_domain import clock
from daybook_domain.runs.models import RunState, RunTrigger
from daybook_domain.runs.tasks import BuildReport
from daybook_domain.tasks import Interrupted
from daybook_platform.postgres.engine import create_engine
from daybook_platform.postgres.sessions import Sessions
from daybook_worker.metrics import WorkerMetrics
from tests.integration.worker.builders import blocked_build, count_finished_runs, create_builder
from tests.integration.worker.runs import (
    DAY,
    blocked_builds,
    count_blocked_builds,
    find_report_day,
    get_run,
    queue_run,
)
from tests.support.proxy import Proxy

pytestmark = pytest.mark.usefixtures("clean")


async def test_a_queued_run_is_built_and_succeeds(engine: AsyncEngine, sessions: Sessions) -> None:
    run_id, metrics = await queue_run(sessions), WorkerMetrics()

    await create_builder(engine, metrics=metrics).build(BuildReport(run_id=run_id))

    run, day = await get_run(sessions, run_id), await find_report_day(sessions)
    assert (run.state, run.worker, run.attempt) == (RunState.SUCCEEDED, "w1", 1)
    assert day is not None
    assert (day.revision, day.last_run_id) == (1, run_id)
    assert count_finished_runs(metrics.registry) == {"succeeded": 1}


async def test_a_second_delivery_changes_nothing(engine: AsyncEngine, sessions: Sessions) -> None:
    run_id = await queue_run(sessions)
    await create_builder(engine).build(BuildReport(run_id=run_id))
    before = await get_run(sessions, run_id)

    await create_builder(engine).build(BuildReport(run_id=run_id))

    assert await get_run(sessions, run_id) == before


async def test_workers_that_receive_the_same_message_build_the_run_once(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id, metrics = await queue_run(sessions), WorkerMetrics()
    builders = [create_builder(engine, worker=f"w{number}", metrics=metrics) for number in range(8)]

    await asyncio.gather(*(builder.build(BuildReport(run_id=run_id)) for builder in builders))

    run = await get_run(sessions, run_id)
    assert (run.state, run.attempt, run.fence) == (RunState.SUCCEEDED, 1, 1)
    assert count_finished_runs(metrics.registry) == {"succeeded": 1}


async def test_a_message_of_a_run_that_does_not_exist_is_no_error(engine: AsyncEngine) -> None:
    await create_builder(engine).build(BuildReport(run_id=uuid4()))


async def test_an_interrupted_run_is_released_immediately_and_has_used_no_attempt(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id, builder = await queue_run(sessions), create_builder(engine)

    async with (
        blocked_builds(engine),
        blocked_build(engine, builder, BuildReport(run_id=run_id)) as build,
    ):
        await builder.interrupt_and_wait()
        with pytest.raises(Interrupted):
            await build
        assert await count_blocked_builds(engine) == 0

    released = await get_run(sessions, run_id)
    assert (released.state, released.attempt) == (RunState.PENDING, 0)
    async with sessions() as session:
        assert released.available_at <= await clock.now(session)


async def test_a_stopped_worker_finishes_the_active_build_and_starts_no_other(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id, builder = await queue_run(sessions), create_builder(engine)

    async with (
        blocked_builds(engine),
        blocked_build(engine, builder, BuildReport(run_id=run_id)) as build,
    ):
        builder.stop()
        with pytest.raises(Interrupted):
            await builder.build(BuildReport(run_id=uuid4()))
    await build

    assert (await get_run(sessions, run_id)).state == RunState.SUCCEEDED


async def test_a_database_that_does_not_return_leaves_the_run_to_the_expiry_of_its_lease(
    postgres_url: str, engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id = await queue_run(sessions)
    async with Proxy(postgres_url) as proxy:
        proxied = create_engine(proxy.url, application="tests", pool_size=3)
        async with (
            blocked_builds(engine),
            blocked_build(
                engine, create_builder(proxied, lease_seconds=1), BuildReport(run_id=run_id)
            ) as build,
        ):
            await proxy.cut()
            await asyncio.wait_for(build, timeout=5)
        await proxied.dispose()

    run = await get_run(sessions, run_id)
    assert (run.state, run.error_code) == (RunState.RUNNING, None)


async def test_the_log_lines_of_a_build_carry_the_claimed_run_and_the_run_of_the_message(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    backfill = await queue_run(sessions, trigger=RunTrigger.BACKFILL)
    urgent_day = DAY + timedelta(days=1)
    urgent = await queue_run(sessions, day=urgent_day)

    with structlog.testing.capture_logs([merge_contextvars]) as lines:
        await create_builder(engine).build(BuildReport(run_id=backfill))

    assert [line["event"] for line in lines] == ["run claimed", "report built"]
    for line in lines:
        assert line["run_id"] == str(urgent)
        assert line["report_date"] == str(urgent_day)
        assert line["message_run_id"] == str(backfill)


async def test_before_a_claim_the_log_lines_carry_the_run_of_the_message_only(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id, builder = await queue_run(sessions), create_builder(engine)
    await builder.build(BuildReport(run_id=run_id))

    with structlog.testing.capture_logs([merge_contextvars]) as lines:
        await builder.build(BuildReport(run_id=run_id))

    (line,) = lines
    assert line["event"] == "nothing to claim"
    assert line["message_run_id"] == str(run_id)
    assert "run_id" not in line
    assert "report_date" not in line


async def test_a_run_of_another_time_zone_is_refused_and_left_to_a_worker_in_that_zone(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id, metrics = await queue_run(sessions), WorkerMetrics()
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE report_runs SET timezone = 'Asia/Tokyo'"))

    with structlog.testing.capture_logs() as logged:
        await create_builder(engine, metrics=metrics).build(BuildReport(run_id=run_id))

    refused = await get_run(sessions, run_id)
    assert (refused.state, refused.attempt) == (RunState.PENDING, 0)
    assert refused.error_code == "timezone_mismatch"
    assert "business days are in Asia/Tokyo" in (refused.error_detail or "")
    assert ("run refused", "error") in {(line["event"], line["log_level"]) for line in logged}
    assert await find_report_day(sessions) is None
    assert count_finished_runs(metrics.registry) == {"refused": 1}

    async with engine.begin() as connection:
        await connection.execute(text("UPDATE report_runs SET state = 'queued'"))
    await create_builder(engine, timezone="Asia/Tokyo").build(BuildReport(run_id=run_id))

    built, day = await get_run(sessions, run_id), await find_report_day(sessions)
    assert (built.state, built.attempt, built.error_code) == (RunState.SUCCEEDED, 1, None)
    assert day is not None
    assert day.timezone == "Asia/Tokyo"
