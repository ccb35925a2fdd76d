"""Fixtures of the worker's tests: queues, a producer, and worker processes."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.worker.processes import StartWorker
from tests.support.processes import Service
from tests.support.producer import Producer
from tests.support.shop import open_shop


@pytest.fixture
async def producer(rabbitmq_url: str, engine: AsyncEngine) -> AsyncIterator[Producer]:
    """Return a producer, with empty queues and a stock of 1,000 of product 1."""
    await open_shop(engine)
    async with Producer.connected(rabbitmq_url) as producer:
        await producer.purge()
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
