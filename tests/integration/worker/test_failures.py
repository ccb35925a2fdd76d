"""Failures of builds: what is recorded on the run, and whether the message is acknowledged."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs.models import RunState
from daybook_domain.runs.tasks import BuildReport
from daybook_platform.postgres.engine import Sessions
from tests.integration.worker.builders import blocked_build, create_builder
from tests.integration.worker.runs import (
    blocked_builds,
    failing_builds,
    find_report_day,
    get_run,
    queue_run,
)

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
