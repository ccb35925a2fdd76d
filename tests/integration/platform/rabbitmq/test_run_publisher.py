"""Publishing of run messages: batches, confirms and outages."""

import asyncio
import json
from contextlib import suppress
from datetime import timedelta

import pytest

from daybook_domain.errors import Unavailable
from daybook_platform.rabbitmq.topology import RUNS
from daybook_platform.taskiq_broker import TaskIQQueue
from tests.integration.platform.notes import NOTE, Note, sending
from tests.support.amqp import AmqpClient
from tests.support.proxy import Proxy

pytestmark = pytest.mark.rabbitmq

FRAME_BYTES = 131_072

UNREACHABLE_URL = "amqp://guest:guest@127.0.0.1:1/"


async def test_an_unroutable_message_is_an_error_and_the_next_one_is_not(
    amqp: AmqpClient,
) -> None:
    async with sending(amqp.url) as queue:
        await queue.send(NOTE, Note(number=1))
        await amqp.channel.queue_delete(RUNS)

        with pytest.raises(Unavailable):
            await queue.send(NOTE, Note(number=2))
        await queue.send(NOTE, Note(number=3))

    assert await amqp.depth() == 1


async def test_concurrent_messages_of_any_size_arrive_exactly_once(
    amqp: AmqpClient,
) -> None:
    async with sending(amqp.url) as queue:
        await queue.send(NOTE, Note(number=100))
        (empty,) = await amqp.consume_run_messages(1)
        # An AMQP frame has a little less than 128 KiB: lengths around that limit.
        around = range(FRAME_BYTES - len(empty) - 20, FRAME_BYTES - len(empty) + 5)
        lengths = [*range(70), *around, 300_000]
        notes = [Note(number=100 + n, text="x" * length) for n, length in enumerate(lengths)]
        await asyncio.gather(*(queue.send(NOTE, note) for note in notes))

    arrived = [_note(body) for body in await amqp.consume_run_messages(len(notes))]
    assert sorted(arrived, key=lambda note: note.number) == notes
    assert await amqp.depth() == 0


async def test_each_sender_of_a_batch_gets_the_result_of_its_own_message(
    amqp: AmqpClient,
) -> None:
    async with sending(amqp.url) as queue:
        await queue.send(NOTE, Note(number=-1))
        async with amqp.limited_run_queue(5):
            sends = (queue.send(NOTE, Note(number=number)) for number in range(40))
            outcomes = await asyncio.gather(*sends, return_exceptions=True)
            accepted = [number for number, outcome in enumerate(outcomes) if outcome is None]
            queued = [_note(body).number for body in await amqp.consume_run_messages(len(accepted))]
            rest = await amqp.depth()
        await queue.send(NOTE, Note(number=40))

    assert {type(outcome) for outcome in outcomes} == {type(None), Unavailable}
    assert (sorted(queued), rest) == (accepted, 0)


async def test_confirmed_messages_are_in_the_queue_even_if_connections_break(
    amqp: AmqpClient,
) -> None:
    confirmed: list[int] = []

    async def send(queue: TaskIQQueue, number: int) -> None:
        with suppress(Unavailable):
            await queue.send(NOTE, Note(number=number))
            confirmed.append(number)

    async with Proxy(amqp.url) as proxy, sending(proxy.url) as queue:
        for start in range(0, 2000, 200):
            first = [asyncio.create_task(send(queue, start + n)) for n in range(100)]
            # Once confirmations arrive, what is sent next is in flight when the connection breaks.
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            second = [asyncio.create_task(send(queue, start + 100 + n)) for n in range(100)]
            await asyncio.sleep(0)
            await proxy.cut()
            await proxy.restore()
            await asyncio.gather(*first, *second)
        await queue.send(NOTE, Note(number=2000))

    queued = [_note(body).number for body in await amqp.consume_run_messages(await amqp.depth())]
    assert confirmed
    assert set(confirmed) <= set(queued)


async def test_a_cancelled_sender_does_not_affect_the_others_in_its_batch(amqp: AmqpClient) -> None:
    async with sending(amqp.url) as queue:
        sends = [asyncio.create_task(queue.send(NOTE, Note(number=n))) for n in range(3)]
        await asyncio.sleep(0)
        sends[0].cancel()
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        await queue.send(NOTE, Note(number=3))

    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [None, None]
    assert await amqp.depth() == 4


async def test_shutting_down_a_publisher_fails_its_pending_sends(amqp: AmqpClient) -> None:
    async with (
        Proxy(amqp.url) as proxy,
        sending(proxy.url, timeout=timedelta(minutes=5)) as queue,
    ):
        proxy.stall()
        sends = [asyncio.create_task(queue.send(NOTE, Note(number=n))) for n in range(3)]
        await asyncio.sleep(0)

    outcomes = await asyncio.gather(*sends, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}


async def test_a_publisher_starts_without_rabbitmq_and_its_sends_fail_immediately() -> None:
    async with sending(UNREACHABLE_URL) as queue:
        with pytest.raises(Unavailable) as error:
            await queue.send(NOTE, Note(number=1))

    # Refused by the operating system, without waiting for the timeout.
    assert isinstance(error.value.__cause__, ConnectionError)


async def test_a_publisher_reconnects_after_an_outage(amqp: AmqpClient) -> None:
    async with Proxy(amqp.url) as proxy, sending(proxy.url) as queue:
        await queue.send(NOTE, Note(number=1))
        await proxy.cut()
        with pytest.raises(Unavailable):
            await queue.send(NOTE, Note(number=2))
        await proxy.restore()
        await queue.send(NOTE, Note(number=3))

    assert await amqp.depth() == 2


async def test_a_send_without_a_response_fails_after_its_timeout(amqp: AmqpClient) -> None:
    async with (
        Proxy(amqp.url) as proxy,
        sending(proxy.url, timeout=timedelta(seconds=0.3)) as queue,
    ):
        await queue.send(NOTE, Note(number=1))
        proxy.stall()
        outcomes = await asyncio.gather(
            *(queue.send(NOTE, Note(number=number)) for number in range(5)), return_exceptions=True
        )
        await proxy.restore()
        await queue.send(NOTE, Note(number=9))

    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 5
    # Each had its own timeout, and waited neither for another send nor for a heartbeat.
    assert {_cause(outcome) for outcome in outcomes} == {"no response within 0.3 s"}


async def test_a_send_whose_connection_breaks_is_unavailable(amqp: AmqpClient) -> None:
    async with Proxy(amqp.url) as proxy, sending(proxy.url) as queue:
        await queue.send(NOTE, Note(number=1))
        proxy.stall()
        sends = [asyncio.create_task(queue.send(NOTE, Note(number=n))) for n in range(3)]
        await asyncio.sleep(0)
        await proxy.cut()
        outcomes = await asyncio.gather(*sends, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {Unavailable}


def _note(body: bytes) -> Note:
    return Note.model_validate(json.loads(body)["args"][0])


def _cause(outcome: BaseException | None) -> str:
    return str(outcome and outcome.__cause__)
