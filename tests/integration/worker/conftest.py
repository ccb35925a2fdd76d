"""Fixtures of the worker's tests."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.producer import Producer
from tests.support.shop import open_shop


@pytest.fixture
async def producer(rabbitmq_url: str, engine: AsyncEngine) -> AsyncIterator[Producer]:
    """Return a producer, with empty queues and a shop with 1,000 pieces of product 1."""
    await open_shop(engine)
    async with Producer.connected(rabbitmq_url) as producer:
        await producer.purge()
        yield producer
