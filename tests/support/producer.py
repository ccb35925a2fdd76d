"""How does a test send messages as any producer would, and look at the queues from outside?"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aio_pika
from aio_pika.abc import AbstractChannel
from aiormq import spec

from daybook_domain.intake.messages import Queue
from daybook_domain.intake.parsing import DEAD_LETTER_QUEUE
from daybook_platform.rabbitmq.topology import declare_intake_queues


class _Plain(spec.Basic.Properties):
    """Properties without a message id: aiormq gives every message one, other clients do not."""

    def marshal(self) -> bytes:
        """Return what is sent."""
        self.message_id = None
        return super().marshal()


@dataclass
class Producer:
    """A plain AMQP client: default exchange, JSON body, delivery mode 2, and nothing else."""

    channel: AbstractChannel

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str) -> AsyncIterator[Self]:
        """Connect, with publisher confirms, and see to it that our queues exist."""
        connection = await aio_pika.connect(url)
        try:
            channel = await connection.channel()
            await declare_intake_queues(channel)
            yield cls(channel)
        finally:
            await connection.close()

    async def send(self, queue: str, body: bytes, **properties: Any) -> None:
        """Send one message; returns when RabbitMQ has it."""
        kind = spec.Basic.Properties if "message_id" in properties else _Plain
        underlay = await self.channel.get_underlay_channel()
        await underlay.basic_publish(
            body, routing_key=queue, properties=kind(delivery_mode=2, **properties)
        )

    async def send_all(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Send many, in order."""
        for queue, body in messages:
            await self.send(queue, body)

    async def purge(self) -> None:
        """Empty all queues of the intake."""
        for name in (*Queue, DEAD_LETTER_QUEUE):
            await (await self.channel.get_queue(name)).purge()

    async def depth(self, name: str) -> int:
        """Return how many messages are ready in a queue."""
        queue = await self.channel.declare_queue(name, passive=True)
        return queue.declaration_result.message_count or 0

    async def depths(self) -> int:
        """Return how many messages are ready in all queues together."""
        return sum([await self.depth(name) for name in (*Queue, DEAD_LETTER_QUEUE)])
