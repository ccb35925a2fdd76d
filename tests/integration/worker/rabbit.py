"""What does RabbitMQ hold, seen from outside, and how is our broker run against it?"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, DeliveryMode
from aiormq.abc import FieldTable
from pydantic import BaseModel
from taskiq.receiver import Receiver as TaskiqReceiver

from daybook_domain.tasks import Task
from daybook_platform.rabbitmq.run_broker import DEAD_LETTERS, RUNS, declare_queues
from daybook_platform.taskiq_broker import Broker, TaskIQQueue, create_broker, register
from daybook_worker.receiver import Receiver
from tests.support.waiting import until


class Note(BaseModel):
    """The payload of a task that exists only in these tests."""

    number: int
    text: str = ""


STOP_SECONDS = 20

NOTE = Task(name="tests.note", payload=Note, timeout=timedelta(seconds=5))


@dataclass
class Rabbit:
    """RabbitMQ, seen from outside."""

    url: str
    channel: AbstractChannel

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str) -> AsyncIterator[Self]:
        """Connect, and declare what a worker would."""
        connection = await aio_pika.connect(url)
        try:
            channel = await connection.channel()
            await declare_queues(channel)
            yield cls(url=url, channel=channel)
        finally:
            await connection.close()

    async def purge(self) -> None:
        """Empty both queues."""
        for name in (RUNS, DEAD_LETTERS):
            queue = await self.channel.get_queue(name)
            await queue.purge()

    async def publish(self, body: bytes) -> None:
        """Put any bytes into the queue of runs."""
        exchange = await self.channel.get_exchange(RUNS)
        message = aio_pika.Message(body, delivery_mode=DeliveryMode.PERSISTENT)
        await exchange.publish(message, routing_key=RUNS)

    async def depth(self, name: str = RUNS) -> int:
        """Return how many messages are ready in a queue."""
        queue = await self.channel.declare_queue(name, passive=True)
        return queue.declaration_result.message_count or 0

    async def take(self, count: int) -> list[bytes]:
        """Wait for so many messages in the queue of runs, and take them."""
        queue = await self.channel.get_queue(RUNS)
        bodies: list[bytes] = []

        async def came() -> bool:
            while len(bodies) < count and (message := await queue.get(fail=False)):
                bodies.append(message.body)
                await message.ack()
            return len(bodies) >= count

        await until(came, what=f"{count} messages")
        return bodies

    @asynccontextmanager
    async def holding_at_most(self, count: int) -> AsyncIterator[None]:
        """Have a queue of runs that refuses what would be more than `count` messages."""
        await self.channel.queue_delete(RUNS)
        arguments: FieldTable = {"x-max-length": count, "x-overflow": "reject-publish"}
        small = await self.channel.declare_queue(RUNS, durable=True, arguments=arguments)
        await small.bind(RUNS, routing_key=RUNS)
        try:
            yield
        finally:
            await self.channel.queue_delete(RUNS)
            await declare_queues(self.channel)

    async def dead_letter(self) -> AbstractIncomingMessage:
        """Wait for a dead letter, and take it."""
        queue = await self.channel.get_queue(DEAD_LETTERS)
        letters: list[AbstractIncomingMessage] = []

        async def came() -> bool:
            letter = await queue.get(fail=False)
            if letter is not None:
                letters.append(letter)
            return letter is not None

        await until(came, what="a dead letter")
        await letters[0].ack()
        return letters[0]


def deaths(letter: AbstractIncomingMessage) -> list[tuple[Any, Any, Any]]:
    """Return what `x-death` says: in which queue, why, how often."""
    entries: Any = letter.headers["x-death"]
    return [(entry["queue"], entry["reason"], entry["count"]) for entry in entries]


def envelope(
    name: str, *args: object, labels: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """Return a message in TaskIQ's format."""
    return {
        "task_id": uuid4().hex,
        "task_name": name,
        "labels": dict(labels or {}),
        "args": list(args),
        "kwargs": {},
    }


@asynccontextmanager
async def working(
    url: str,
    handler: Callable[[Note], Awaitable[None]],
    *,
    receiver: type[TaskiqReceiver] = Receiver,
    redis_url: str = "",
    prefetch: int = 2,
) -> AsyncIterator[Broker]:
    """Run a worker that binds `handler` to `NOTE`; fail when its end takes long."""
    broker = create_broker(url, application="tests", redis_url=redis_url, prefetch=prefetch)
    broker.is_worker_process = True
    register(broker, NOTE, handler)
    finish = asyncio.Event()
    listening = asyncio.create_task(
        receiver(broker, max_async_tasks=prefetch).listen(finish), name="listening"
    )
    try:
        yield broker
    finally:
        finish.set()
        # Its own timeouts add up to a few seconds, a dead connection is noticed after many.
        async with asyncio.timeout(STOP_SECONDS):
            await listening
            await broker.shutdown()


@asynccontextmanager
async def sending(
    url: str, *, timeout: timedelta = timedelta(seconds=10)
) -> AsyncIterator[TaskIQQueue]:
    """Run a publisher; RabbitMQ may be slow to confirm, as when it has just started."""
    broker = create_broker(url, application="tests", timeout=timeout)
    await broker.startup()
    try:
        yield TaskIQQueue(broker)
    finally:
        await broker.shutdown()


class Notes:
    """A handler that remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    async def __call__(self, note: Note) -> None:
        """Remember a note; a negative one is refused."""
        self.seen.append(note.number)
        if note.number < 0:
            raise ArithmeticError("a negative note")

    async def have(self, *numbers: int) -> None:
        """Wait until just these were seen."""

        async def seen() -> bool:
            return sorted(self.seen) == sorted(numbers)

        await until(seen, what=f"seeing {numbers} and nothing else")

    async def include(self, *numbers: int) -> None:
        """Wait until these were seen, however often: an acknowledgement can be lost."""

        async def seen() -> bool:
            return set(numbers) <= set(self.seen)

        await until(seen, what=f"seeing {numbers}")
