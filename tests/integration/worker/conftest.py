"""Fixtures of the worker's tests: queues, a producer, and worker processes."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.worker.processes import StartWorker
from tests.support.amqp import AmqpClient
from tests.support.factories.shop import reset_shop
from tests.support.processes import Service


@pytest.fixture
async def producer(rabbitmq_url: str, engine: AsyncEngine) -> AsyncIterator[AmqpClient]:
    """Return a producer, with empty queues and a stock of 1,000 of product 1."""
    await reset_shop(engine)
    async with AmqpClient.connected(rabbitmq_url) as producer:
        await producer.purge_intake_queues()
        yield producer


@pytest.fixture
def start_worker(rabbitmq_url: str, postgres_url: str, tmp_path: Path) -> Iterator[StartWorker]:
    """Return a function that starts worker processes, which end with the test."""
    with ExitStack() as stack:

        def start(
            *arguments: str, command: tuple[str, ...] = ("daybook-worker",), **environment: str
        ) -> Service:
            service = Service(
                (*command, *arguments),
                environment={
                    "DAYBOOK_DATABASE_URL": postgres_url,
                    "DAYBOOK_BROKER_URL": rabbitmq_url,
                    **environment,
                },
                log=tmp_path / f"{len(list(tmp_path.iterdir()))}.log",
            )
            return stack.enter_context(service)

        yield start
