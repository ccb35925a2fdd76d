"""Do messages survive RabbitMQ's absence, and does nobody wait for it longer than told?"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis
from taskiq import TaskiqMessage, TaskiqMiddleware

from daybook_domain.errors import Unavailable
from daybook_embedded.rabbitmq import RabbitServer, find_rabbitmq
from daybook_platform.rabbitmq.run_broker import RUNS
from daybook_platform.taskiq_broker import TaskIQQueue
from tests.integration.worker.rabbit import NOTE, Note, Notes, Rabbit, deaths, sending, working
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = pytest.mark.rabbitmq

FRAME_BYTES = 131_072

NOWHERE = "amqp://guest:guest@127.0.0.1:1/"


async def test_a_task_reaches_its_handler_and_leaves_the_queue(rabbit: Rabbit) -> None:
    notes = Notes()

    async with working(rabbit.url, notes), sending(rabbit.url) as queue:
        await queue.send(NOTE, Note(number=7))
        await notes.have(7)

    assert await rabbit.depth() == 0


async def test_what_is_sent_before_any_worker_came_is_kept(rabbit: Rabbit) -> None:
    notes = Notes()
    async with sending(rabbit.url) as queue:
        for number in range(20):
            await queue.send(NOTE, Note(number=number))

    async with working(rabbit.url, notes):
        await notes.have(*range(20))


async def test_a_message_that_no_queue_takes_is_an_error_and_the_next_one_is_not(
    rabbit: Rabbit,
) -> None:
    async with sending(rabbit.url) as queue:
        await queue.send(NOTE, Note(number=1))
        await rabbit.channel.queue_delete(RUNS)

        with pytest.raises(Unavailable):
            await queue.send(NOTE, Note(number=2))
        await queue.send(NOTE, Note(number=3))

    assert await rabbit.depth() == 1


async def test_what_is_sent_in_the_same_moment_arrives_each_once_however_large(
    rabbit: Rabbit,
) -> None:
    async with sending(rabbit.url) as queue:
        await queue.send(NOTE, Note(number=100))
        (empty,) = await rabbit.take(1)
        # A frame of AMQP holds a little less than 128 KiB: just that, and a byte less and more.
        around = range(FRAME_BYTES - len(empty) - 20, FRAME_BYTES - len(empty) + 5)
        lengths = [*range(70), *around, 300_000]
        notes = [Note(number=100 + n, text="x" * length) for n, length in enumerate(lengths)]
        await asyncio.gather(*(queue.send(NOTE, note) for note in notes))

    arrived = [_note(body) for body in await rabbit.take(len(notes))]
    assert sorted(arrived, key=lambda note: note.number) == notes
    assert await rabbit.depth() == 0


async def test_of_what_is_sent_together_each_is_told_whether_rabbitmq_took_it(
    rabbit: Rabbit,
) -> None:
    async with sending(rabbit.url) as queue:
        await queue.send(NOTE, Note(number=-1))
        async with rabbit.holding_at_most(5):
            sends = (queue.send(NOTE, Note(number=number)) for number in range(40))
            outcomes = await asyncio.gather(*sends, return_exceptions=True)
            taken = [number for number, outcome in enumerate(outcomes) if outcome is None]
            there = [_note(body).number for body in await rabbit.take(len(taken))]
            rest = await rabbit.depth()
        await queue.send(NOTE, Note(number=40))

    assert {type(outcome) for outcome in outcomes} == {type(None), Unavailable}
    assert (sorted(there), rest) == (taken, 0)


async def test_what_a_sender_believes_to_be_taken_is_there_though_connections_break(
    rabbit: Rabbit,
) -> None:
    believed: list[int] = []

    async def send(queue: TaskIQQueue, number: int) -> None:
        with suppress(Unavailable):
            await queue.send(NOTE, Note(number=number))
            believed.append(number)

    async with Proxy(rabbit.url) as proxy, sending(proxy.url) as queue:
        for start in range(0, 2000, 200):
            first = [asyncio.create_task(send(queue, start + n)) for n in range(100)]
            # Confirmations come in; what is sent now is on its way when the connection breaks.
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            second = [asyncio.create_task(send(queue, start + 100 + n)) for n in range(100)]
            await asyncio.sleep(0)
            await proxy.cut()
            await proxy.mend()
            await asyncio.gather(*first, *second)
        await queue.send(NOTE, Note(number=2000))

    there = [_note(body).number for body in await rabbit.take(await rabbit.depth())]
    assert believed
    assert set(believed) <= set(there)


async def test_a_sender_that_gives_up_does_not_take_the_others_with_it(rabbit: Rabbit) -> None:
    async with sending(rabbit.url) as queue:
        sends = [asyncio.create_task(queue.send(NOTE, Note(number=n))) for n in range(3)]
        await asyncio.sleep(0)
        sends[0].cancel()
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        await queue.send(NOTE, Note(number=3))

    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [None, None]
    assert await rabbit.depth() == 4


async def test_a_publisher_that_is_shut_down_leaves_no_sender_waiting(rabbit: Rabbit) -> None:
    async with (
        Proxy(rabbit.url) as proxy,
        sending(proxy.url, timeout=timedelta(minutes=5)) as queue,
    ):
        proxy.swallow()
        sends = [asyncio.create_task(queue.send(NOTE, Note(number=n))) for n in range(3)]
        await asyncio.sleep(0)

    outcomes = await asyncio.gather(*sends, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}


async def test_a_publisher_starts_without_rabbitmq_and_says_so_at_once() -> None:
    async with sending(NOWHERE) as queue:
        with pytest.raises(Unavailable) as told:
            await queue.send(NOTE, Note(number=1))

    # It was refused; nobody waited for the timeout.
    assert isinstance(told.value.__cause__, ConnectionError)


async def test_a_publisher_finds_rabbitmq_again_by_itself(rabbit: Rabbit) -> None:
    async with Proxy(rabbit.url) as proxy, sending(proxy.url) as queue:
        await queue.send(NOTE, Note(number=1))
        await proxy.cut()
        with pytest.raises(Unavailable):
            await queue.send(NOTE, Note(number=2))
        await proxy.mend()
        await queue.send(NOTE, Note(number=3))

    assert await rabbit.depth() == 2


async def test_a_send_into_the_void_ends_within_its_timeout(rabbit: Rabbit) -> None:
    async with (
        Proxy(rabbit.url) as proxy,
        sending(proxy.url, timeout=timedelta(seconds=0.3)) as queue,
    ):
        await queue.send(NOTE, Note(number=1))
        proxy.swallow()
        outcomes = await asyncio.gather(
            *(queue.send(NOTE, Note(number=number)) for number in range(5)), return_exceptions=True
        )
        await proxy.mend()
        await queue.send(NOTE, Note(number=9))

    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 5
    # Each waited for itself, not for the one before or for a heartbeat to fail.
    assert {_told(outcome) for outcome in outcomes} == {"no answer within 0.3 s"}


async def test_a_send_that_is_cut_off_in_the_middle_is_unavailable(rabbit: Rabbit) -> None:
    async with Proxy(rabbit.url) as proxy, sending(proxy.url) as queue:
        await queue.send(NOTE, Note(number=1))
        proxy.swallow()
        sends = [asyncio.create_task(queue.send(NOTE, Note(number=n))) for n in range(3)]
        await asyncio.sleep(0)
        await proxy.cut()
        outcomes = await asyncio.gather(*sends, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {Unavailable}


async def test_consumption_resumes_after_every_cut(rabbit: Rabbit) -> None:
    notes = Notes()

    async with (
        Proxy(rabbit.url) as proxy,
        working(proxy.url, notes) as broker,
        sending(rabbit.url) as queue,
    ):
        for number in range(3):
            await queue.send(NOTE, Note(number=number))
            await notes.include(number)
            await proxy.cut()
            await until(lambda: _unavailable(broker.ping), what="noticing the cut")
            await proxy.mend()

        await until(lambda: _available(broker.ping), what="consuming again")


async def test_a_worker_that_started_without_rabbitmq_begins_when_it_comes(rabbit: Rabbit) -> None:
    notes = Notes()

    async with Proxy(rabbit.url) as proxy, sending(rabbit.url) as queue:
        await proxy.cut()
        async with working(proxy.url, notes) as broker:
            await queue.send(NOTE, Note(number=1))
            assert await _unavailable(broker.ping)
            await proxy.mend()
            await notes.have(1)


async def test_consumption_resumes_after_the_queue_was_deleted(rabbit: Rabbit) -> None:
    notes = Notes()

    async with working(rabbit.url, notes) as broker, sending(rabbit.url) as queue:
        await until(lambda: _available(broker.ping), what="consuming")
        with structlog.testing.capture_logs() as logged:
            await rabbit.channel.queue_delete(RUNS)
            await until(lambda: _logged(logged, "consuming"), what="consuming again")
        await queue.send(NOTE, Note(number=1))
        await notes.have(1)


async def test_an_acknowledgement_that_is_lost_with_its_connection_is_a_second_delivery(
    rabbit: Rabbit,
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
        Proxy(rabbit.url) as proxy,
        working(proxy.url, handler),
        sending(rabbit.url) as queue,
    ):
        await queue.send(NOTE, Note(number=5))
        await until(once)
        await proxy.cut()
        cut.set()
        await proxy.mend()
        await until(twice, what="the second delivery")

    assert await rabbit.depth() == 0


async def test_a_worker_stops_at_once_also_when_rabbitmq_is_away(rabbit: Rabbit) -> None:
    # `working` fails when the end takes long.
    async with Proxy(rabbit.url) as proxy, working(proxy.url, Notes()) as broker:
        await until(lambda: _available(broker.ping), what="consuming")
        proxy.swallow()


async def test_no_more_messages_are_taken_than_can_be_worked_on(rabbit: Rabbit) -> None:
    release = asyncio.Event()

    async def handler(_: Note) -> None:
        await release.wait()

    async def all_but_two() -> bool:
        return await rabbit.depth() == 8

    async with sending(rabbit.url) as queue:
        for number in range(10):
            await queue.send(NOTE, Note(number=number))
    async with working(rabbit.url, handler, prefetch=2):
        await until(all_but_two, what="taking two messages")
        release.set()


async def test_redis_gone_changes_nothing(rabbit: Rabbit, redis_url: str) -> None:
    notes = Notes()

    async with Proxy(redis_url) as redis:
        await redis.cut()
        async with (
            working(rabbit.url, notes, redis_url=redis.url),
            sending(rabbit.url) as queue,
        ):
            await queue.send(NOTE, Note(number=1))
            await notes.have(1)
            await redis.mend()
            redis.swallow()
            await queue.send(NOTE, Note(number=2))
            await notes.have(1, 2)

    assert await rabbit.depth() == 0


async def test_results_are_kept_as_json_and_only_for_a_while(
    rabbit: Rabbit, redis_url: str
) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(*[key async for key in redis.scan_iter("daybook:result:*")] or ["-"])

        async with working(rabbit.url, Notes(), redis_url=redis_url):
            async with sending(rabbit.url) as queue:
                await queue.send(NOTE, Note(number=1))
            await until(lambda: _is_there(redis, "daybook:result:*"), what="a result")

        (key,) = [key async for key in redis.scan_iter("daybook:result:*")]
        assert json.loads(await redis.get(key) or b"")["is_err"] is False
        assert 0 < await redis.ttl(key) <= 3600


class Broken(TaskiqMiddleware):
    """A middleware with a bug."""

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Break."""
        raise KeyError(message.task_name)


async def test_an_error_of_a_middleware_does_not_keep_the_message(rabbit: Rabbit) -> None:
    async with working(rabbit.url, Notes()) as broker:
        broker.add_middlewares(Broken())
        async with sending(rabbit.url) as queue:
            await queue.send(NOTE, Note(number=1))
        letter = await rabbit.dead_letter()

    assert deaths(letter) == [(RUNS, "rejected", 1)]


async def test_a_rabbitmq_that_restarts_delivers_again_what_was_not_acknowledged(
    tmp_path: Path,
) -> None:
    if find_rabbitmq() is None:
        pytest.skip("rabbitmq-server is not installed")
    notes, begun, finish = Notes(), asyncio.Event(), asyncio.Event()

    async def handler(note: Note) -> None:
        begun.set()
        await finish.wait()
        await notes(note)

    server = RabbitServer(tmp_path)
    url = await asyncio.to_thread(server.start)
    try:
        async with sending(url) as queue, working(url, handler) as broker:
            await queue.send(NOTE, Note(number=1))
            await begun.wait()
            await asyncio.to_thread(server.stop)
            with pytest.raises(Unavailable):
                await queue.send(NOTE, Note(number=2))
            finish.set()
            assert await asyncio.to_thread(server.start) == url
            await until(lambda: _available(broker.ping), seconds=30, what="consuming again")
            await queue.send(NOTE, Note(number=3))
            await notes.have(1, 1, 3)
    finally:
        await asyncio.to_thread(server.stop)


def _note(body: bytes) -> Note:
    return Note.model_validate(json.loads(body)["args"][0])


def _told(outcome: BaseException | None) -> str:
    return str(outcome and outcome.__cause__)


async def _is_there(redis: Redis, pattern: str) -> bool:
    return bool([key async for key in redis.scan_iter(pattern)])


async def _logged(lines: Sequence[Mapping[str, Any]], event: str) -> bool:
    return any(line["event"] == event for line in lines)


async def _available(ping: Callable[[], Awaitable[None]]) -> bool:
    return not await _unavailable(ping)


async def _unavailable(ping: Callable[[], Awaitable[None]]) -> bool:
    try:
        await ping()
    except Unavailable:
        return True
    return False
