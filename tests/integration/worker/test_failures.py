"""Failures of builds: what is recorded on the run, and whether the message is acknowledged."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs.models import RunState
from daybook_domain.runs.tasks import BuildReport
from daybook_platform.postgres.engine import create_engine
from daybook_platform.postgres.sessions import Sessions
from tests.integration.worker.builders import blocked_build, create_builder
from tests.integration.worker.runs import (
    blocked_builds,
    failing_builds,
    find_report_day,
    get_run,
    queue_run,
    requeue_run,
)
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("clean")


async def test_an_unexpected_error_is_recorded_on_the_run_and_raised_for_the_message(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id = await queue_run(sessions)

    async with failing_builds(engine, sqlstate="P0001"):
        with pytest.raises(DBAPIError):
            await create_builder(engine).build(BuildReport(run_id=run_id))

    run = await get_run(sessions, run_id)
    assert (run.state, run.attempt) == (RunState.PENDING, 1)
    assert "simulated failure" in (run.error_detail or "")
    assert await find_report_day(sessions) is None


@pytest.mark.parametrize(
    "sqlstate", ["25006", "40P01", "53100", "53200", "53300", "55P03", "57014"]
)
async def test_a_temporary_database_error_is_recorded_and_the_message_is_acknowledged(
    engine: AsyncEngine, sessions: Sessions, sqlstate: str
) -> None:
    run_id = await queue_run(sessions)

    async with failing_builds(engine, sqlstate=sqlstate):
        await create_builder(engine).build(BuildReport(run_id=run_id))

    run = await get_run(sessions, run_id)
    assert (run.state, run.error_code) == (RunState.PENDING, "unavailable")


async def test_a_terminated_connection_is_recorded_and_the_message_is_acknowledged(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id = await queue_run(sessions)

    async with (
        blocked_builds(engine),
        blocked_build(engine, create_builder(engine), BuildReport(run_id=run_id)) as build,
    ):
        async with engine.connect() as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks"
                    " WHERE locktype = 'advisory' AND NOT granted"
                )
            )
        await build

    run = await get_run(sessions, run_id)
    assert (run.state, run.error_code) == (RunState.PENDING, "unavailable")


@pytest.mark.parametrize("sqlstate", ["53100", "53200", "53300", "57P03", "25006"])
async def test_a_long_outage_uses_no_attempt_and_the_run_succeeds_after_it(
    engine: AsyncEngine, sessions: Sessions, sqlstate: str
) -> None:
    run_id, builder = await queue_run(sessions), create_builder(engine)
    async with failing_builds(engine, sqlstate=sqlstate):
        for _ in range(6):
            await builder.build(BuildReport(run_id=run_id))
            await requeue_run(sessions, run_id)
    during = await get_run(sessions, run_id)

    await builder.build(BuildReport(run_id=run_id))

    after = await get_run(sessions, run_id)
    assert (during.attempt, during.error_code) == (0, "unavailable")
    assert during.outage_since is not None
    assert (after.state, after.attempt) == (RunState.SUCCEEDED, 1)


@pytest.mark.parametrize("sqlstate", ["40P01", "55P03", "57014", "25P03", "P0001"])
async def test_an_attempt_that_ends_while_the_database_is_available_is_counted(
    engine: AsyncEngine, sessions: Sessions, sqlstate: str
) -> None:
    run_id, builder = await queue_run(sessions), create_builder(engine)
    async with failing_builds(engine, sqlstate=sqlstate):
        for _ in range(4):
            with suppress(DBAPIError):
                await builder.build(BuildReport(run_id=run_id))
            await requeue_run(sessions, run_id)
        with suppress(DBAPIError):
            await builder.build(BuildReport(run_id=run_id))

    run = await get_run(sessions, run_id)
    assert (run.state, run.attempt) == (RunState.FAILED, 5)


async def test_a_failure_is_recorded_when_the_database_returns_before_the_lease_expires(
    postgres_url: str, engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id = await queue_run(sessions)
    async with Proxy(postgres_url) as proxy:
        proxied = create_engine(proxy.url, application="tests", pool_size=3)
        async with (
            blocked_builds(engine),
            blocked_build(engine, create_builder(proxied), BuildReport(run_id=run_id)) as build,
        ):
            with structlog.testing.capture_logs() as lines:
                await proxy.cut()
                await wait_until(lambda: _has_failed(lines), what="the failure of the build")
                await proxy.restore()
                await build
        await proxied.dispose()

    run = await get_run(sessions, run_id)
    assert (run.state, run.attempt, run.error_code) == (RunState.PENDING, 0, "unavailable")


async def _has_failed(lines: Sequence[Mapping[str, object]]) -> bool:
    return "build failed" in [line["event"] for line in lines]
