"""A client that inspects and fills the queues of run messages in RabbitMQ."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, DeliveryMode
from aiormq.abc import FieldTable

from daybook_platform.rabbitmq.topology import DEAD_LETTERS, RUNS, declare_run_queues
from tests.support.waiting import until


@dataclass
class Rabbit:
    """A RabbitMQ client beside the code under test."""

    url: str
    channel: AbstractChannel

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str) -> AsyncIterator[Self]:
        """Connect and declare the queues of run messages."""
        connection = await aio_pika.connect(url)
        try:
            channel = await connection.channel()
            await declare_run_queues(channel)
            yield cls(url=url, channel=channel)
        finally:
            await connection.close()

    async def purge(self) -> None:
        """Purge both queues."""
        for name in (RUNS, DEAD_LETTERS):
            queue = await self.channel.get_queue(name)
            await queue.purge()

    async def publish(self, body: bytes) -> None:
        """Publish `body` to the queue of run messages."""
        exchange = await self.channel.get_exchange(RUNS)
        message = aio_pika.Message(body, delivery_mode=DeliveryMode.PERSISTENT)
        await exchange.publish(message, routing_key=RUNS)

    async def depth(self, name: str = RUNS) -> int:
        """Return the number of ready messages in a queue."""
        queue = await self.channel.declare_queue(name, passive=True)
        return queue.declaration_result.message_count or 0

    async def consume(self, count: int) -> list[bytes]:
        """Consume `count` run messages, waiting for them; return their bodies."""
        queue = await self.channel.get_queue(RUNS)
        bodies: list[bytes] = []

        async def received() -> bool:
            while len(bodies) < count and (message := await queue.get(fail=False)):
                bodies.append(message.body)
                await message.ack()
            return len(bodies) >= count

        await until(received, what=f"{count} messages")
        return bodies

    @asynccontextmanager
    async def max_length(self, count: int) -> AsyncIterator[None]:
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

    async def dead_letter(self) -> AbstractIncomingMessage:
        """Consume a dead letter, waiting for it."""
        queue = await self.channel.get_queue(DEAD_LETTERS)
        letters: list[AbstractIncomingMessage] = []

        async def received() -> bool:
            letter = await queue.get(fail=False)
            if letter is not None:
                letters.append(letter)
            return letter is not None

        await until(received, what="a dead letter")
        await letters[0].ack()
        return letters[0]


def deaths(letter: AbstractIncomingMessage) -> list[tuple[Any, Any, Any]]:
    """Return (queue, reason, count) of each entry of the header `x-death`."""
    entries: Any = letter.headers["x-death"]
    return [(entry["queue"], entry["reason"], entry["count"]) for entry in entries]
