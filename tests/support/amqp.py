"""An AMQP client that fills and inspects the queues, and a spy on the published run messages."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

import aio_pika
from aio_pika.abc import (
    AbstractChannel,
    AbstractIncomingMessage,
    AbstractQueue,
    DeliveryMode,
)
from aiormq import spec
from aiormq.abc import FieldTable

from daybook_domain.intake.messages import Queue
from daybook_domain.intake.parsing import DEAD_LETTER_QUEUE
from daybook_platform.rabbitmq.topology import (
    DEAD_LETTERS,
    RUNS,
    declare_intake_queues,
    declare_run_queues,
)
from tests.support.waiting import wait_until

INTAKE_QUEUES = (*Queue, DEAD_LETTER_QUEUE)
RUN_QUEUES = (RUNS, DEAD_LETTERS)

SPY_QUEUE = "tests.seen"


class _PropertiesWithoutMessageId(spec.Basic.Properties):
    """Properties without a message id: aiormq adds one to every message, other clients do not."""

    def marshal(self) -> bytes:
        """Return the encoded properties."""
        self.message_id = None
        return super().marshal()


@dataclass
class AmqpClient:
    """A RabbitMQ client that is independent of the code under test."""

    url: str
    channel: AbstractChannel

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str) -> AsyncIterator[Self]:
        """Connect with publisher confirms, and declare the intake and run queues."""
        connection = await aio_pika.connect(url)
        try:
            channel = await connection.channel()
            await declare_intake_queues(channel)
            await declare_run_queues(channel)
            yield cls(url=url, channel=channel)
        finally:
            await connection.close()

    async def send(self, queue: str, body: bytes, **properties: Any) -> None:
        """Publish a persistent message on the default exchange, as any producer may.

        Returns when RabbitMQ has confirmed it. The message has no id unless `properties` has one.
        """
        has_id = "message_id" in properties
        kind = spec.Basic.Properties if has_id else _PropertiesWithoutMessageId
        underlay = await self.channel.get_underlay_channel()
        await underlay.basic_publish(
            body, routing_key=queue, properties=kind(delivery_mode=2, **properties)
        )

    async def send_all(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Publish pairs of queue and body, in order."""
        for queue, body in messages:
            await self.send(queue, body)

    async def publish_run_message(self, body: bytes) -> None:
        """Publish `body` to the queue of run messages, on its exchange."""
        exchange = await self.channel.get_exchange(RUNS)
        message = aio_pika.Message(body, delivery_mode=DeliveryMode.PERSISTENT)
        await exchange.publish(message, routing_key=RUNS)

    async def purge_intake_queues(self) -> None:
        """Purge the intake queues and their dead-letter queue."""
        for name in INTAKE_QUEUES:
            await (await self.channel.get_queue(name)).purge()

    async def purge_run_queues(self) -> None:
        """Purge the queue of run messages and its dead-letter queue."""
        for name in RUN_QUEUES:
            await (await self.channel.get_queue(name)).purge()

    async def depth(self, name: str = RUNS) -> int:
        """Return the number of ready messages in a queue."""
        return await _count_ready_messages(self.channel, name)

    async def count_intake_messages(self) -> int:
        """Return the number of ready messages in the intake queues and their dead-letter queue."""
        return sum([await self.depth(name) for name in INTAKE_QUEUES])

    async def consume_run_messages(self, count: int) -> list[bytes]:
        """Wait for `count` run messages, consume them and return their bodies."""
        queue = await self.channel.get_queue(RUNS)
        bodies: list[bytes] = []

        async def received() -> bool:
            while len(bodies) < count and (message := await queue.get(fail=False)):
                bodies.append(message.body)
                await message.ack()
            return len(bodies) >= count

        await wait_until(received, what=f"{count} messages")
        return bodies

    async def consume_dead_letter(self) -> AbstractIncomingMessage:
        """Wait for a dead-lettered run message, consume it and return it."""
        queue = await self.channel.get_queue(DEAD_LETTERS)
        dead_letters: list[AbstractIncomingMessage] = []

        async def received() -> bool:
            dead_letter = await queue.get(fail=False)
            if dead_letter is not None:
                dead_letters.append(dead_letter)
            return dead_letter is not None

        await wait_until(received, what="a dead letter")
        await dead_letters[0].ack()
        return dead_letters[0]

    @asynccontextmanager
    async def limited_run_queue(self, count: int) -> AsyncIterator[None]:
        """Replace the queue of run messages by one that rejects more than `count` messages."""
        await self.channel.queue_delete(RUNS)
        arguments: FieldTable = {"x-max-length": count, "x-overflow": "reject-publish"}
        limited = await self.channel.declare_queue(RUNS, durable=True, arguments=arguments)
        await limited.bind(RUNS, routing_key=RUNS)
        try:
            yield
        finally:
            await self.channel.queue_delete(RUNS)
            await declare_run_queues(self.channel)


@dataclass(frozen=True)
class MessageSpy:
    """A queue that receives every published run message, whether or not a worker consumes it.

    It is a quorum queue, as is that of the workers. A publisher gets its confirm only when both
    queues have stored the message, so the spy has every confirmed message, even after a restart
    of the server. For the same reason each call opens its own connection.
    """

    url: str

    @classmethod
    @asynccontextmanager
    async def attached(cls, url: str) -> AsyncIterator[Self]:
        """Purge the run queues, and record all run messages until the end of the context."""
        spy = cls(url)
        async with spy._channel() as channel:
            runs = await declare_run_queues(channel)
            await runs.purge()
            await (await channel.get_queue(DEAD_LETTERS)).purge()
            await (await spy._declare_queue(channel)).bind(RUNS, routing_key=RUNS)
        try:
            yield spy
        finally:
            async with spy._channel() as channel:
                await channel.queue_delete(SPY_QUEUE)

    async def take_run_ids(self) -> list[UUID]:
        """Consume the recorded messages, and return the run id of each."""
        run_ids = []
        async with self._channel() as channel:
            queue = await self._declare_queue(channel)
            while (message := await queue.get(fail=False)) is not None:
                (payload,) = json.loads(message.body)["args"]
                run_ids.append(UUID(payload["run_id"]))
                await message.ack()
        return run_ids

    async def depth(self, name: str) -> int:
        """Return the number of ready messages in a queue."""
        async with self._channel() as channel:
            return await _count_ready_messages(channel, name)

    async def _declare_queue(self, channel: AbstractChannel) -> AbstractQueue:
        return await channel.declare_queue(
            SPY_QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
        )

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        async with await aio_pika.connect(self.url) as connection:
            yield await connection.channel()


async def _count_ready_messages(channel: AbstractChannel, name: str) -> int:
    queue = await channel.declare_queue(name, passive=True)
    return queue.declaration_result.message_count or 0


def list_deaths(message: AbstractIncomingMessage) -> list[tuple[Any, Any, Any]]:
    """Return (queue, reason, count) of each entry of the header `x-death`."""
    entries: Any = message.headers["x-death"]
    return [(entry["queue"], entry["reason"], entry["count"]) for entry in entries]
