"""Consumption of run messages: acknowledgement, prefetch and outages."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from taskiq import TaskiqMessage, TaskiqMiddleware

from daybook_domain.errors import Unavailable
from daybook_embedded.rabbitmq import RabbitServer, find_rabbitmq
from daybook_platform.rabbitmq.topology import RUNS
from tests.integration.platform.notes import NOTE, Note, Notes, sending, working
from tests.support.amqp import AmqpClient, list_deaths
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq


async def test_a_handled_task_leaves_the_queue(amqp: AmqpClient) -> None:
    notes = Notes()

    async with working(amqp.url, notes), sending(amqp.url) as queue:
        await queue.send(NOTE, Note(number=7))
        await notes.have(7)

    assert await amqp.depth() == 0


async def test_messages_sent_before_any_worker_started_are_handled(amqp: AmqpClient) -> None:
    notes = Notes()
    async with sending(amqp.url) as queue:
        for number in range(20):
            await queue.send(NOTE, Note(number=number))

    async with working(amqp.url, notes):
        await notes.have(*range(20))


async def test_consumption_resumes_after_every_cut(amqp: AmqpClient) -> None:
    notes = Notes()

    async with (
        Proxy(amqp.url) as proxy,
        working(proxy.url, notes) as broker,
        sending(amqp.url) as queue,
    ):
        for number in range(3):
            await queue.send(NOTE, Note(number=number))
            await notes.include(number)
            await proxy.cut()
            await wait_until(lambda: _unavailable(broker.ping), what="detection of the cut")
            await proxy.restore()

        await wait_until(lambda: _available(broker.ping), what="consuming again")


async def test_a_worker_that_started_without_rabbitmq_consumes_once_it_is_available(
    amqp: AmqpClient,
) -> None:
    notes = Notes()

    async with Proxy(amqp.url) as proxy, sending(amqp.url) as queue:
        await proxy.cut()
        async with working(proxy.url, notes) as broker:
            await queue.send(NOTE, Note(number=1))
            assert await _unavailable(broker.ping)
            await proxy.restore()
            await notes.have(1)


async def test_consumption_resumes_after_the_queue_was_deleted(amqp: AmqpClient) -> None:
    notes = Notes()

    async with working(amqp.url, notes) as broker, sending(amqp.url) as queue:
        await wait_until(lambda: _available(broker.ping), what="consuming")
        with structlog.testing.capture_logs() as logged:
            await amqp.channel.queue_delete(RUNS)
            await wait_until(lambda: _logged(logged, "consuming"), what="consuming again")
        await queue.send(NOTE, Note(number=1))
        await notes.have(1)


async def test_an_acknowledgement_lost_with_its_connection_causes_a_second_delivery(
    amqp: AmqpClient,
) -> None:
    seen: list[int] = []
    cut = asyncio.Event()

    async def handler(note: Note) -> None:
        seen.append(note.number)
        if len(seen) == 1:
            await cut.wait()

    async def twice() -> bool:
        return seen == [5, 5]

    async def once() -> bool:
        return seen == [5]

    async with (
        Proxy(amqp.url) as proxy,
        working(proxy.url, handler),
        sending(amqp.url) as queue,
    ):
        await queue.send(NOTE, Note(number=5))
        await wait_until(once)
        await proxy.cut()
        cut.set()
        await proxy.restore()
        await wait_until(twice, what="the second delivery")

    assert await amqp.depth() == 0


async def test_a_worker_stops_promptly_while_rabbitmq_is_unavailable(amqp: AmqpClient) -> None:
    # `working` fails if stopping takes long.
    async with Proxy(amqp.url) as proxy, working(proxy.url, Notes()) as broker:
        await wait_until(lambda: _available(broker.ping), what="consuming")
        proxy.stall()


async def test_a_worker_prefetches_no_more_messages_than_its_limit(amqp: AmqpClient) -> None:
    release = asyncio.Event()

    async def handler(_: Note) -> None:
        await release.wait()

    async def all_but_two() -> bool:
        return await amqp.depth() == 8

    async with sending(amqp.url) as queue:
        for number in range(10):
            await queue.send(NOTE, Note(number=number))
    async with working(amqp.url, handler, prefetch=2):
        await wait_until(all_but_two, what="taking two messages")
        release.set()


class Broken(TaskiqMiddleware):
    """A middleware with a bug."""

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Raise `KeyError`."""
        raise KeyError(message.task_name)


async def test_an_error_in_a_middleware_dead_letters_the_message(amqp: AmqpClient) -> None:
    async with working(amqp.url, Notes()) as broker:
        broker.add_middlewares(Broken())
        async with sending(amqp.url) as queue:
            await queue.send(NOTE, Note(number=1))
        dead_letter = await amqp.consume_dead_letter()

    assert list_deaths(dead_letter) == [(RUNS, "rejected", 1)]


async def test_a_restarted_rabbitmq_redelivers_unacknowledged_messages(
    tmp_path: Path,
) -> None:
    if find_rabbitmq() is None:
        pytest.skip("rabbitmq-server is not installed")
    notes, started, finish = Notes(), asyncio.Event(), asyncio.Event()

    async def handler(note: Note) -> None:
        started.set()
        await finish.wait()
        await notes(note)

    server = RabbitServer(tmp_path)
    url = await asyncio.to_thread(server.start)
    try:
        async with sending(url) as queue, working(url, handler) as broker:
            await queue.send(NOTE, Note(number=1))
            await started.wait()
            await asyncio.to_thread(server.stop)
            with pytest.raises(Unavailable):
                await queue.send(NOTE, Note(number=2))
            finish.set()
            assert await asyncio.to_thread(server.start) == url
            await wait_until(lambda: _available(broker.ping), seconds=30, what="consuming again")
            await queue.send(NOTE, Note(number=3))
            await notes.have(1, 1, 3)
    finally:
        await asyncio.to_thread(server.stop)


async def _logged(entries: Sequence[Mapping[str, Any]], event: str) -> bool:
    return any(entry["event"] == event for entry in entries)


async def _available(ping: Callable[[], Awaitable[None]]) -> bool:
    return not await _unavailable(ping)


async def _unavailable(ping: Callable[[], Awaitable[None]]) -> bool:
    try:
        await ping()
    except Unavailable:
        return True
    return False
