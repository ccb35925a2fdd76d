"""Report builders under test, and their builds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs.tasks import BuildReport
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.reports import ReportBuilder
from tests.integration.worker.runs import has_blocked_builds
from tests.support.waiting import wait_until


def create_builder(
    engine: AsyncEngine,
    *,
    lease_seconds: float = 30,
    worker: str = "w1",
    metrics: WorkerMetrics | None = None,
    concurrency: int = 1,
    timezone: str = "UTC",
    stalled_after: timedelta = timedelta(seconds=10),
    transaction_timeout: timedelta = timedelta(seconds=10),
) -> ReportBuilder:
    """Return a builder of reports in UTC, or in another time zone."""
    return ReportBuilder(
        engine,
        timezone=timezone,
        lease=timedelta(seconds=lease_seconds),
        worker=worker,
        metrics=metrics or WorkerMetrics(),
        concurrency=concurrency,
        refusal_pause=timedelta(0),
        stalled_after=stalled_after,
        transaction_timeout=transaction_timeout,
    )


@asynccontextmanager
async def blocked_build(
    engine: AsyncEngine, builder: ReportBuilder, task: BuildReport
) -> AsyncIterator[asyncio.Task[None]]:
    """Start a build of a blocked date, and enter the block when it waits for the date's lock."""
    build = asyncio.create_task(builder.build(task))
    await wait_until(lambda: has_blocked_builds(engine, 1), what="a build that waits for its date")
    yield build


def count_finished_runs(registry: CollectorRegistry) -> dict[str, float]:
    """Return the number of finished runs by outcome."""
    return {
        sample.labels["outcome"]: sample.value
        for family in registry.collect()
        if family.name == "daybook_runs_finished"
        for sample in family.samples
        if sample.name.endswith("_total")
    }
