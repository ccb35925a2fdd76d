"""Settlement of run messages, with our receiver and with TaskIQ's own.

`taskiq worker` uses TaskIQ's own receiver unless it is given Daybook's.
"""

import asyncio
import json
from typing import Any

import pytest
import structlog
from taskiq.receiver import Receiver as TaskiqReceiver

from daybook_domain.tasks import Interrupted
from daybook_platform.rabbitmq.topology import DEAD_LETTERS, RUNS
from daybook_worker.receiver import Receiver
from tests.integration.platform.notes import NOTE, Note, Notes, envelope, sending, working
from tests.support.amqp import AmqpClient, list_deaths
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.parametrize("receiver", [Receiver, TaskiqReceiver], ids=["daybook", "taskiq"]),
]

INVALID_MESSAGES: dict[str, tuple[Any, str]] = {
    "not JSON": (b"\x00\xffnonsense", "malformed"),
    "empty": (b"", "malformed"),
    "nested too deeply": (b"[" * 100_000, "malformed"),
    "JSON of another shape": ({"run_id": 1}, "malformed"),
    "an unknown task": (envelope("reports.paint", {}), "unknown task 'reports.paint'"),
    "no payload": (envelope(NOTE.name), "TypeError"),
    "two payloads": (envelope(NOTE.name, {"number": 1}, {"number": 2}), "TypeError"),
    "a payload that is not an object": (envelope(NOTE.name, 7), "ValidationError"),
    "a payload of another shape": (envelope(NOTE.name, {"number": "x"}), "ValidationError"),
    "a handler that raises": (envelope(NOTE.name, {"number": -1}), "ArithmeticError: a negative"),
    "an early acknowledgement type": (
        envelope(NOTE.name, {"number": 1}, labels={"ack_type": "when_received"}),
        "label 'ack_type'",
    ),
    "an invalid acknowledgement type": (
        envelope(NOTE.name, {"number": 1}, labels={"ack_type": "?"}),
        "label 'ack_type'",
    ),
}


@pytest.mark.parametrize(
    ("message", "reason"), INVALID_MESSAGES.values(), ids=INVALID_MESSAGES.keys()
)
async def test_a_message_that_cannot_be_processed_is_dead_lettered_once_with_its_reason(
    amqp: AmqpClient, receiver: type[TaskiqReceiver], message: Any, reason: str
) -> None:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    notes = Notes()

    with structlog.testing.capture_logs() as logged:
        async with working(amqp.url, notes, receiver=receiver):
            await amqp.publish_run_message(body)
            dead_letter = await amqp.consume_dead_letter()

    assert dead_letter.body == body
    assert list_deaths(dead_letter) == [(RUNS, "rejected", 1)]
    assert len(notes.seen) <= 1
    assert (await amqp.depth(RUNS), await amqp.depth(DEAD_LETTERS)) == (0, 0)
    (line,) = [line for line in logged if line["event"] == "message dead-lettered"]
    # Python rejects a missing argument before our wrapper of the handler runs.
    assert line["reason"].startswith((reason, "the handler was never called"))


async def test_the_messages_after_an_invalid_one_are_handled(
    amqp: AmqpClient, receiver: type[TaskiqReceiver]
) -> None:
    notes = Notes()

    async with working(amqp.url, notes, receiver=receiver), sending(amqp.url) as queue:
        for number in (1, -1, 2, -2, 3, -3, 4):
            await amqp.publish_run_message(b"invalid")
            await queue.send(NOTE, Note(number=number))
        await notes.have(1, -1, 2, -2, 3, -3, 4)
        dead_letters = [await amqp.consume_dead_letter() for _ in range(10)]

    assert len(dead_letters) == 10
    assert await amqp.depth() == 0


async def test_a_message_stays_in_the_queue_until_its_handler_has_returned(
    amqp: AmqpClient, receiver: type[TaskiqReceiver]
) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    async def handler(_: Note) -> None:
        started.set()
        await finish.wait()

    async with working(amqp.url, handler, receiver=receiver) as broker:
        async with sending(amqp.url) as queue:
            await queue.send(NOTE, Note(number=1))
        await started.wait()
        # As in a crash: the connection is closed without an acknowledgement.
        await broker.shutdown()
        await wait_until(lambda: _has_depth(amqp, 1), what="the message to be requeued")
        finish.set()


async def test_a_message_whose_handler_is_interrupted_is_requeued_for_another_worker(
    amqp: AmqpClient, receiver: type[TaskiqReceiver]
) -> None:
    handled = asyncio.Event()
    deliveries = 0

    async def handler(_: Note) -> None:
        nonlocal deliveries
        deliveries += 1
        if deliveries == 1:
            raise Interrupted
        handled.set()

    async with working(amqp.url, handler, receiver=receiver), sending(amqp.url) as queue:
        await queue.send(NOTE, Note(number=1))
        await asyncio.wait_for(handled.wait(), timeout=5)

    assert (await amqp.depth(RUNS), await amqp.depth(DEAD_LETTERS)) == (0, 0)


async def test_a_message_that_no_handler_finishes_is_dead_lettered_at_the_delivery_limit(
    amqp: AmqpClient, receiver: type[TaskiqReceiver]
) -> None:
    async def handler(_: Note) -> None:
        raise Interrupted

    async with working(amqp.url, handler, receiver=receiver), sending(amqp.url) as queue:
        await queue.send(NOTE, Note(number=1))
        dead_letter = await amqp.consume_dead_letter()

    assert list_deaths(dead_letter) == [(RUNS, "delivery_limit", 1)]


async def _has_depth(amqp: AmqpClient, messages: int) -> bool:
    return await amqp.depth() == messages
