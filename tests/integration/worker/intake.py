"""How is the intake run in a test, and what does it hold?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from daybook_domain.db import create_engine, create_sessions
from daybook_domain.errors import Unavailable
from daybook_worker.intake import Intake
from daybook_worker.letters import LetterRounds
from daybook_worker.metrics import Metrics
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
) -> AsyncIterator[Intake]:
    """Run the intake and its rounds; in the end they drain."""
    given = settings(database_url=database_url, broker_url=broker_url, **more)
    engine = create_engine(database_url, application="tests intake")
    sessions = create_sessions(engine)
    intake = Intake(engine, given, sessions=sessions, metrics=Metrics())
    rounds = LetterRounds(given, sessions=sessions, metrics=Metrics())
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


async def consuming(intake: Intake) -> bool:
    """Tell whether the intake is ready."""
    try:
        await intake.ping()
    except Unavailable:
        return False
    return True
