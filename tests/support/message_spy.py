"""Which run messages has RabbitMQ taken, whoever has consumed them since?"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self
from uuid import UUID

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractQueue

from daybook_platform.rabbitmq.topology import DEAD_LETTERS, RUNS, declare_run_queues

SEEN = "tests.seen"


@dataclass(frozen=True)
class Eavesdropper:
    """A queue of our own that gets a copy of each run message.

    A quorum queue like that of the workers: a publisher has its confirm only when both have the
    message on disk, so what was confirmed is heard here, and outlives a restart.
    """

    url: str

    @classmethod
    @asynccontextmanager
    async def listening(cls, url: str) -> AsyncIterator[Self]:
        """Hear whatever is published from now on; the queues of other tests are emptied."""
        ear = cls(url)
        async with ear._channel() as channel:
            runs = await declare_run_queues(channel)
            await runs.purge()
            await (await channel.get_queue(DEAD_LETTERS)).purge()
            await (await ear._seen(channel)).bind(RUNS, routing_key=RUNS)
        try:
            yield ear
        finally:
            async with ear._channel() as channel:
                await channel.queue_delete(SEEN)

    async def heard(self) -> list[UUID]:
        """Return the runs that the messages name, one for each message."""
        named = []
        async with self._channel() as channel:
            seen = await self._seen(channel)
            while (message := await seen.get(fail=False)) is not None:
                (payload,) = json.loads(message.body)["args"]
                named.append(UUID(payload["run_id"]))
                await message.ack()
        return named

    async def depth(self, name: str) -> int:
        """Return how many messages are ready in a queue."""
        async with self._channel() as channel:
            queue = await channel.declare_queue(name, passive=True)
            return queue.declaration_result.message_count or 0

    async def _seen(self, channel: AbstractChannel) -> AbstractQueue:
        return await channel.declare_queue(SEEN, durable=True, arguments={"x-queue-type": "quorum"})

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        async with await aio_pika.connect(self.url) as connection:
            yield await connection.channel()
