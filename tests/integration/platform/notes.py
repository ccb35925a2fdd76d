"""A test task, and its workers and senders on any broker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

from pydantic import BaseModel
from taskiq.receiver import Receiver as TaskiqReceiver

from daybook_domain.tasks import Task
from daybook_platform.taskiq_broker import Broker, TaskIQQueue, create_broker, register
from daybook_worker.receiver import Receiver
from tests.support.waiting import wait_until


class Note(BaseModel):
    """The payload of the test task."""

    number: int
    text: str = ""


STOP_SECONDS = 20

NOTE = Task(name="tests.note", payload=Note, timeout=timedelta(seconds=5))


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
    """Run a worker with `handler` for `NOTE`; fail if it takes longer than 20 s to stop."""
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
        # Its own timeouts add up to a few seconds; a dead connection takes longer to detect.
        async with asyncio.timeout(STOP_SECONDS):
            await listening
            await broker.shutdown()


@asynccontextmanager
async def sending(
    url: str, *, timeout: timedelta = timedelta(seconds=10)
) -> AsyncIterator[TaskIQQueue]:
    """Run a sender; RabbitMQ may be slow to confirm just after its start."""
    broker = create_broker(url, application="tests", timeout=timeout)
    await broker.startup()
    try:
        yield TaskIQQueue(broker)
    finally:
        await broker.shutdown()


class Notes:
    """A handler that records the notes that it was called with."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    async def __call__(self, note: Note) -> None:
        """Record `note`. Raises `ArithmeticError` for a negative number."""
        self.seen.append(note.number)
        if note.number < 0:
            raise ArithmeticError("a negative note")

    async def have(self, *numbers: int) -> None:
        """Wait until exactly `numbers` were seen."""

        async def seen() -> bool:
            return sorted(self.seen) == sorted(numbers)

        await wait_until(seen, what=f"seeing exactly {numbers}")

    async def include(self, *numbers: int) -> None:
        """Wait until `numbers` were seen, perhaps repeatedly: an acknowledgement can be lost."""

        async def seen() -> bool:
            return set(numbers) <= set(self.seen)

        await wait_until(seen, what=f"seeing {numbers}")
