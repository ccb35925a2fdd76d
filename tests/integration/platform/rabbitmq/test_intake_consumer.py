"""The consumer of the intake queues: suspected messages, and channels that close."""

from collections.abc import AsyncIterator

import pytest

from daybook_domain.errors import Unavailable
from daybook_platform.rabbitmq.intake_consumer import (
    SUSPECT_DELIVERY_COUNT,
    IntakeConsumer,
    ReceivedMessage,
)
from tests.support.amqp import AmqpClient
from tests.support.factories.messages import order_message
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq

LONG_ENOUGH = 10.0


@pytest.fixture
async def producer(rabbitmq_url: str) -> AsyncIterator[AmqpClient]:
    """Return a producer, with empty queues."""
    async with AmqpClient.connected(rabbitmq_url) as producer:
        await producer.purge_intake_queues()
        yield producer


async def start(url: str) -> IntakeConsumer:
    return await IntakeConsumer.start(url, application="tests", prefetch=10, timeout=LONG_ENOUGH)


@pytest.mark.parametrize(
    ("failures", "suspected"),
    [(SUSPECT_DELIVERY_COUNT - 1, False), (SUSPECT_DELIVERY_COUNT, True)],
)
async def test_a_message_is_suspected_after_three_failed_deliveries(
    producer: AmqpClient, rabbitmq_url: str, *, failures: int, suspected: bool
) -> None:
    await producer.send("order", order_message())
    queue = await producer.channel.get_queue("order")
    for _ in range(failures):
        message = await wait_until(lambda: queue.get(fail=False), what="the message")
        assert message is not None
        await message.nack(requeue=True)
    consumer = await start(rabbitmq_url)

    async def receive() -> ReceivedMessage | None:
        batch = await consumer.receive_batch(limit=1, max_delay=0, timeout=LONG_ENOUGH)
        return batch[0] if batch else None

    received = await wait_until(receive)
    await consumer.close()

    assert received is not None
    assert received.suspected is suspected


async def test_deliveries_are_lost_as_soon_as_the_channel_closes(
    producer: AmqpClient, rabbitmq_url: str
) -> None:
    consumer = await start(rabbitmq_url)
    assert consumer.is_alive

    await consumer.close()

    assert not consumer.is_alive


async def test_a_consumer_that_rabbitmq_cancels_stops_receiving(
    producer: AmqpClient, rabbitmq_url: str
) -> None:
    consumer = await start(rabbitmq_url)

    await producer.channel.queue_delete("product")

    with pytest.raises(Unavailable, match="closed"):
        await consumer.receive_batch(limit=1, max_delay=0, timeout=LONG_ENOUGH)
    assert not consumer.is_alive
    await consumer.close()
