"""Is what cannot be processed kept, with the reason, and does it never come round again?

All of it holds for our receiver and for TaskIQ's own, which `taskiq worker` uses.
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
from tests.integration.platform.rabbitmq.rabbit import Rabbit, deaths
from tests.support.waiting import until

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.parametrize("receiver", [Receiver, TaskiqReceiver], ids=["ours", "stock"]),
]

HOPELESS: dict[str, tuple[Any, str]] = {
    "not JSON": (b"\x00\xffnonsense", "malformed"),
    "empty": (b"", "malformed"),
    "nested too deeply": (b"[" * 100_000, "malformed"),
    "JSON of another shape": ({"run_id": 1}, "malformed"),
    "an unknown task": (envelope("reports.paint", {}), "unknown task 'reports.paint'"),
    "no payload": (envelope(NOTE.name), "TypeError"),
    "two payloads": (envelope(NOTE.name, {"number": 1}, {"number": 2}), "TypeError"),
    "a payload that is no object": (envelope(NOTE.name, 7), "ValidationError"),
    "a payload of another shape": (envelope(NOTE.name, {"number": "x"}), "ValidationError"),
    "a handler that raises": (envelope(NOTE.name, {"number": -1}), "ArithmeticError: a negative"),
    "acknowledge me now": (
        envelope(NOTE.name, {"number": 1}, labels={"ack_type": "when_received"}),
        "label 'ack_type'",
    ),
    "an acknowledgement of nonsense": (
        envelope(NOTE.name, {"number": 1}, labels={"ack_type": "?"}),
        "label 'ack_type'",
    ),
}


@pytest.mark.parametrize(("message", "reason"), HOPELESS.values(), ids=HOPELESS.keys())
async def test_what_cannot_be_processed_becomes_a_dead_letter_once_with_its_reason(
    rabbit: Rabbit, receiver: type[TaskiqReceiver], message: Any, reason: str
) -> None:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    notes = Notes()

    with structlog.testing.capture_logs() as logged:
        async with working(rabbit.url, notes, receiver=receiver):
            await rabbit.publish(body)
            letter = await rabbit.dead_letter()

    assert letter.body == body
    assert deaths(letter) == [(RUNS, "rejected", 1)]
    assert len(notes.seen) <= 1
    assert (await rabbit.depth(RUNS), await rabbit.depth(DEAD_LETTERS)) == (0, 0)
    (line,) = [line for line in logged if line["event"] == "message dead-lettered"]
    # A missing argument is found by Python before our wrapper runs.
    assert line["reason"].startswith((reason, "the handler was never called"))


async def test_the_messages_after_a_bad_one_are_handled(
    rabbit: Rabbit, receiver: type[TaskiqReceiver]
) -> None:
    notes = Notes()

    async with working(rabbit.url, notes, receiver=receiver), sending(rabbit.url) as queue:
        for number in (1, -1, 2, -2, 3, -3, 4):
            await rabbit.publish(b"nonsense")
            await queue.send(NOTE, Note(number=number))
        await notes.have(1, -1, 2, -2, 3, -3, 4)
        letters = [await rabbit.dead_letter() for _ in range(10)]

    assert len(letters) == 10
    assert await rabbit.depth() == 0


async def test_a_message_stays_in_the_queue_until_its_handler_has_returned(
    rabbit: Rabbit, receiver: type[TaskiqReceiver]
) -> None:
    begun, finish = asyncio.Event(), asyncio.Event()

    async def handler(_: Note) -> None:
        begun.set()
        await finish.wait()

    async with working(rabbit.url, handler, receiver=receiver) as broker:
        async with sending(rabbit.url) as queue:
            await queue.send(NOTE, Note(number=1))
        await begun.wait()
        # The process dies: its connection is gone, and nobody has acknowledged.
        await broker.shutdown()
        await until(lambda: _is_ready(rabbit, 1), what="the return of the message")
        finish.set()


async def test_a_handler_that_gives_up_its_task_leaves_it_to_another_worker(
    rabbit: Rabbit, receiver: type[TaskiqReceiver]
) -> None:
    handled = asyncio.Event()
    deliveries = 0

    async def handler(_: Note) -> None:
        nonlocal deliveries
        deliveries += 1
        if deliveries == 1:
            raise Interrupted
        handled.set()

    async with working(rabbit.url, handler, receiver=receiver), sending(rabbit.url) as queue:
        await queue.send(NOTE, Note(number=1))
        await asyncio.wait_for(handled.wait(), timeout=5)

    assert (await rabbit.depth(RUNS), await rabbit.depth(DEAD_LETTERS)) == (0, 0)


async def test_a_message_that_nobody_finishes_does_not_come_round_for_ever(
    rabbit: Rabbit, receiver: type[TaskiqReceiver]
) -> None:
    async def handler(_: Note) -> None:
        raise Interrupted

    async with working(rabbit.url, handler, receiver=receiver), sending(rabbit.url) as queue:
        await queue.send(NOTE, Note(number=1))
        letter = await rabbit.dead_letter()

    assert deaths(letter) == [(RUNS, "delivery_limit", 1)]


async def _is_ready(rabbit: Rabbit, messages: int) -> bool:
    return await rabbit.depth() == messages
