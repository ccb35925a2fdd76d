"""Intake processors under test."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from daybook_domain.errors import Unavailable
from daybook_platform.postgres.engine import create_engine, create_sessions, dispose
from daybook_platform.postgres.sessions import TRANSACTION_TIMEOUT
from daybook_worker.dead_letter_retries import DeadLetterRetrier
from daybook_worker.intake import IntakeProcessor
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.settings import WorkerSettings
from tests.support.waiting import wait_until


@asynccontextmanager
async def running_intake(
    database_url: str,
    broker_url: str,
    *,
    wait_until_consuming: bool = True,
    metrics: WorkerMetrics | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    transaction_timeout: timedelta = TRANSACTION_TIMEOUT,
    stalled_after: timedelta = timedelta(seconds=15),
    idle_timeout: timedelta = timedelta(seconds=30),
    **settings: Any,
) -> AsyncIterator[IntakeProcessor]:
    """Run an intake processor and the retries of dead letters; they drain on exit."""
    worker_settings = WorkerSettings.model_validate(
        {"database_url": database_url, "broker_url": broker_url} | settings
    )
    engine = create_engine(
        database_url, application="tests intake", ping_timeout=timedelta(seconds=0.5)
    )
    sessions = create_sessions(engine, timeout=transaction_timeout)
    processor = IntakeProcessor(
        engine,
        worker_settings,
        sessions=sessions,
        metrics=metrics or WorkerMetrics(),
        monotonic=monotonic,
        stalled_after=stalled_after,
        idle_timeout=idle_timeout,
    )
    retrier = DeadLetterRetrier(worker_settings, sessions=sessions, metrics=WorkerMetrics())
    tasks = [asyncio.create_task(each.run()) for each in (processor, retrier)]
    try:
        if wait_until_consuming:
            await wait_until(lambda: is_consuming(processor), what="consuming")
        yield processor
    finally:
        processor.stop()
        retrier.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), timeout=15)
        await dispose(engine)


async def is_consuming(processor: IntakeProcessor) -> bool:
    """Return whether the processor is ready."""
    try:
        await processor.ping()
    except Unavailable:
        return False
    return True
