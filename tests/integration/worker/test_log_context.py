"""The context that the log lines of a build carry."""

from datetime import timedelta

import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs.models import RunTrigger
from daybook_domain.runs.tasks import BuildReport
from daybook_platform.postgres.engine import Sessions
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.reports import ReportBuilder
from tests.integration.worker.runs import DAY, queued_run

pytestmark = pytest.mark.usefixtures("clean")


async def test_the_log_lines_of_a_build_carry_the_claimed_run_and_the_run_of_the_message(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    backfill = await queued_run(sessions, trigger=RunTrigger.BACKFILL)
    urgent_day = DAY + timedelta(days=1)
    urgent = await queued_run(sessions, day=urgent_day)
    builder = ReportBuilder(
        engine,
        timezone="UTC",
        lease=timedelta(seconds=30),
        worker="w1",
        metrics=WorkerMetrics(),
    )

    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        await builder.build(BuildReport(run_id=backfill))

    assert [line["event"] for line in lines] == ["run claimed", "report built"]
    for line in lines:
        assert line["run_id"] == str(urgent)
        assert line["report_date"] == str(urgent_day)
        assert line["message_run_id"] == str(backfill)


async def test_before_a_claim_the_log_lines_carry_the_run_of_the_message_only(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id = await queued_run(sessions)
    builder = ReportBuilder(
        engine,
        timezone="UTC",
        lease=timedelta(seconds=30),
        worker="w1",
        metrics=WorkerMetrics(),
    )
    await builder.build(BuildReport(run_id=run_id))

    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        await builder.build(BuildReport(run_id=run_id))

    (line,) = lines
    assert line["event"] == "nothing to claim"
    assert line["message_run_id"] == str(run_id)
    assert "run_id" not in line
    assert "report_date" not in line
