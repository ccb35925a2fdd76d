"""Fixtures of the scheduler's tests."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_platform.postgres.sessions import Sessions
from tests.integration.scheduler.loops import LoopFactory
from tests.integration.scheduler.taskiq_client import TaskiqClient


@pytest.fixture
def loops(engine: AsyncEngine, no_runs: None) -> LoopFactory:
    """Return a factory of scheduler loops, on a database without runs."""
    return LoopFactory(engine)


@pytest.fixture
async def client(sessions: Sessions, redis_url: str, no_runs: None) -> AsyncIterator[TaskiqClient]:
    """Return a client of TaskIQ's source whose keys in Redis are its own."""
    client = TaskiqClient(sessions, redis_url)
    yield client
    await client.close()
