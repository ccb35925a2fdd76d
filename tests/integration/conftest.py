"""What do tests of several services share? A start without runs, and one without copies."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from yarl import URL

from tests.support.amqp import AmqpClient
from tests.support.copies import forget_all


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
            "business_timezone",
        ):
            await connection.execute(text(f"DELETE FROM {table}"))


@pytest.fixture(scope="session")
def copies_url(redis_url: str) -> str:
    """Return the URL of a Redis database where copies may be kept."""
    url = URL(redis_url)
    # Each test process has a database of its own, and beside it one for copies.
    return str(url.with_path(f"/{int(url.path.strip('/') or 0) + 8}"))


@pytest.fixture
async def copies(copies_url: str) -> AsyncIterator[Redis]:
    """Return a client of that database, which holds no copy."""
    redis: Redis = Redis.from_url(copies_url)
    await forget_all(redis)
    yield redis
    await redis.aclose()


@pytest.fixture
async def amqp(rabbitmq_url: str) -> AsyncIterator[AmqpClient]:
    """Return a RabbitMQ client, with empty queues of run messages."""
    async with AmqpClient.connected(rabbitmq_url) as amqp:
        await amqp.purge_run_queues()
        yield amqp
