"""What do the worker's tests share? A look at the queues from outside, and who fills them."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.worker.rabbit import Rabbit
from tests.support.producer import Producer
from tests.support.shop import open_shop


@pytest.fixture
async def rabbit(rabbitmq_url: str) -> AsyncIterator[Rabbit]:
    """Return RabbitMQ with our topology and empty queues."""
    async with Rabbit.connected(rabbitmq_url) as rabbit:
        await rabbit.purge()
        yield rabbit


@pytest.fixture
async def producer(rabbitmq_url: str, engine: AsyncEngine) -> AsyncIterator[Producer]:
    """Give a producer, empty queues, and a shop with 1,000 pieces of product 1."""
    await open_shop(engine)
    async with Producer.connected(rabbitmq_url) as producer:
        await producer.purge()
        yield producer
