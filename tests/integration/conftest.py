"""Fixtures of several services."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.platform.rabbitmq.rabbit import Rabbit
from tests.support.midnight import wait_if_midnight_is_near


@pytest.fixture(autouse=True)
def one_day() -> None:
    """Begin with enough time until midnight, when days end, reports are due and schedules fire."""
    wait_if_midnight_is_near()


@pytest.fixture
async def no_runs(engine: AsyncEngine) -> None:
    """Begin without schedules, runs and days; deleting a few rows is faster than TRUNCATE."""
    async with engine.begin() as connection:
        for table in (
            "report_runs",
            "taskiq_entries",
            "schedules",
            "ledger_beginnings",
            "report_days",
            "backfills",
        ):
            await connection.execute(text(f"DELETE FROM {table}"))


@pytest.fixture
async def rabbit(rabbitmq_url: str) -> AsyncIterator[Rabbit]:
    """Return a RabbitMQ client, with empty queues of run messages."""
    async with Rabbit.connected(rabbitmq_url) as rabbit:
        await rabbit.purge()
        yield rabbit
