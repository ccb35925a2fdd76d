"""What do the worker's tests share? A look at the queues from outside."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.worker.rabbit import Rabbit


@pytest.fixture
async def rabbit(rabbitmq_url: str) -> AsyncIterator[Rabbit]:
    """Return RabbitMQ with our topology and empty queues."""
    async with Rabbit.connected(rabbitmq_url) as rabbit:
        await rabbit.purge()
        yield rabbit
