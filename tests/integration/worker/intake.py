"""How is the intake run in a test, and what does it hold?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from daybook_domain.errors import Unavailable
from daybook_platform.postgres.engine import create_engine, create_sessions
from daybook_worker.dead_letter_retries import DeadLetterRetrier
from daybook_worker.intake import IntakeProcessor
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.settings import WorkerSettings
from tests.support.waiting import until


def settings(*, database_url: str, broker_url: str, **more: Any) -> WorkerSettings:
    """Return the settings of a worker under test."""
    return WorkerSettings.model_validate(
        {"database_url": database_url, "broker_url": broker_url} | more
    )


@asynccontextmanager
async def taking_in(
    database_url: str, broker_url: str, *, ready: bool = True, **more: Any
) -> AsyncIterator[IntakeProcessor]:
    """Run the intake and its rounds; in the end they drain."""
    given = settings(database_url=database_url, broker_url=broker_url, **more)
    engine = create_engine(database_url, application="tests intake")
    sessions = create_sessions(engine)
    intake = IntakeProcessor(engine, given, sessions=sessions, metrics=WorkerMetrics())
    rounds = DeadLetterRetrier(given, sessions=sessions, metrics=WorkerMetrics())
    running = [asyncio.create_task(each.run()) for each in (intake, rounds)]
    try:
        if ready:
            await until(lambda: consuming(intake), what="consuming")
        yield intake
    finally:
        intake.stop()
        rounds.stop()
        await asyncio.wait_for(asyncio.gather(*running), timeout=15)
        await engine.dispose()


async def consuming(intake: IntakeProcessor) -> bool:
    """Tell whether the intake is ready."""
    try:
        await intake.ping()
    except Unavailable:
        return False
    return True
