"""Fixtures of several services."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.amqp import AmqpClient
from tests.support.midnight import wait_if_midnight_is_near


@pytest.fixture(autouse=True)
def one_day() -> None:
    """Begin with enough time until midnight, when days end, reports are due and schedules fire."""
    wait_if_midnight_is_near()


@pytest.fixture
async def no_runs(engine: AsyncEngine) -> None:
    """Delete schedules, runs and days; deleting a few rows is faster than TRUNCATE."""
    async with engine.begin() as connection:
        for table in (
            "report_runs",
            "taskiq_entries",
            "schedules",
            "ledger_beginnings",
            "report_days",
            "reports",
            "backfills",
            "intake_receipts",
            "business_timezone",
        ):
            await connection.execute(text(f"DELETE FROM {table}"))


@pytest.fixture
async def amqp(rabbitmq_url: str) -> AsyncIterator[AmqpClient]:
    """Return a RabbitMQ client, with empty queues of run messages."""
    async with AmqpClient.connected(rabbitmq_url) as amqp:
        await amqp.purge_run_queues()
        yield amqp
