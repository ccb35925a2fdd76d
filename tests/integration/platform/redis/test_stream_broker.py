"""The Redis stream broker: delivery, dead letters and outages."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from taskiq.receiver import Receiver as TaskiqReceiver

from daybook_domain.errors import Unavailable
from daybook_domain.tasks import Interrupted
from daybook_platform.redis.stream_broker import DEAD_LETTERS, GROUP, RUNS, StreamBroker
from daybook_platform.taskiq_broker import create_broker
from daybook_worker.receiver import Receiver
from tests.integration.platform.notes import NOTE, Note, Notes, envelope, sending, working
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Return a client, with both streams deleted."""
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(RUNS, DEAD_LETTERS)
        yield redis


async def is_empty(redis: Redis) -> bool:
    return int(await redis.xlen(RUNS)) == 0


async def dead_letter(redis: Redis) -> dict[bytes, bytes]:
    async def received() -> Any:
        return await redis.xrange(DEAD_LETTERS)

    ((_, fields),) = await wait_until(received, what="a dead letter")
    return cast("dict[bytes, bytes]", fields)


async def test_messages_sent_before_any_worker_started_are_handled_and_leave_the_stream_empty(
    redis: Redis, redis_url: str
) -> None:
    notes = Notes()
    async with sending(redis_url) as queue:
        for number in range(20):
            await queue.send(NOTE, Note(number=number))

    async with working(redis_url, notes):
        await notes.have(*range(20))
        await wait_until(lambda: is_empty(redis), what="deletion of all entries")


@pytest.mark.parametrize("receiver", [Receiver, TaskiqReceiver], ids=["daybook", "taskiq"])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"nonsense", "malformed"),
        (json.dumps(envelope("reports.paint", {})).encode(), "unknown task"),
        (json.dumps(envelope(NOTE.name, {"number": "x"})).encode(), "ValidationError"),
        (json.dumps(envelope(NOTE.name, {"number": -1})).encode(), "ArithmeticError"),
    ],
)
async def test_a_message_that_cannot_be_processed_is_dead_lettered_with_its_reason(
    redis: Redis, redis_url: str, receiver: type[TaskiqReceiver], body: bytes, reason: str
) -> None:
    async with working(redis_url, Notes(), receiver=receiver):
        await redis.xadd(RUNS, {"data": body})
        stored = await dead_letter(redis)
        await wait_until(lambda: is_empty(redis))

    assert stored[b"data"] == body
    assert stored[b"reason"].decode().startswith(reason)


async def test_an_entry_without_a_body_is_dead_lettered(redis: Redis, redis_url: str) -> None:
    async with working(redis_url, Notes()):
        await redis.xadd(RUNS, {"colour": "blue"})
        assert (await dead_letter(redis))[b"reason"].startswith(b"malformed")


async def test_the_task_of_an_interrupted_handler_is_delivered_again(
    redis: Redis, redis_url: str
) -> None:
    seen: list[int] = []

    async def handler(note: Note) -> None:
        seen.append(note.number)
        if len(seen) == 1:
            raise Interrupted

    async def twice() -> bool:
        return seen == [1, 1]

    async with working(redis_url, handler), sending(redis_url) as queue:
        await queue.send(NOTE, Note(number=1))
        await wait_until(twice)


async def test_consumption_resumes_after_every_cut(redis: Redis, redis_url: str) -> None:
    notes = Notes()

    async with Proxy(redis_url) as proxy:
        await proxy.cut()
        async with working(proxy.url, notes) as broker, sending(redis_url) as queue:
            for number in range(3):
                with pytest.raises(Unavailable):
                    await broker.ping()
                await queue.send(NOTE, Note(number=number))
                await proxy.restore()
                await notes.have(*range(number + 1))
                await proxy.cut()


async def test_a_worker_stops_at_any_point_of_its_start(redis: Redis, redis_url: str) -> None:
    async def start_and_stop(*, iterations: int) -> bool:
        broker = create_broker(redis_url, application="tests")
        broker.is_worker_process = True
        finish = asyncio.Event()
        listening = asyncio.create_task(Receiver(broker, max_async_tasks=2).listen(finish))
        for _ in range(iterations):
            # Each iteration of the event loop leaves the worker at another step of redis-py.
            await asyncio.sleep(0)
        finish.set()
        await asyncio.wait({listening}, timeout=20)
        await broker.shutdown()
        return listening.done()

    stopped = await asyncio.gather(
        *(start_and_stop(iterations=iterations) for iterations in range(40))
    )

    assert [iterations for iterations, has_stopped in enumerate(stopped) if not has_stopped] == []


async def test_consumption_resumes_after_redis_lost_its_data(redis: Redis, redis_url: str) -> None:
    notes = Notes()

    async with working(redis_url, notes), sending(redis_url) as queue:
        await queue.send(NOTE, Note(number=1))
        await notes.have(1)
        await redis.delete(RUNS)
        await queue.send(NOTE, Note(number=2))
        await notes.have(1, 2)


async def test_the_entry_of_a_dead_worker_is_claimed_without_a_new_message(
    redis: Redis, redis_url: str
) -> None:
    await redis.xgroup_create(RUNS, GROUP, id="0", mkstream=True)
    body = json.dumps(envelope(NOTE.name, {"number": 5})).encode()
    await redis.xadd(RUNS, {"data": body})
    await redis.xreadgroup(GROUP, "a worker that died", {RUNS: ">"})
    broker = StreamBroker(redis_url, timeout=1, stale_after=timedelta(milliseconds=1))
    broker.is_worker_process = True
    broker.register_task(Notes.__call__, task_name=NOTE.name)

    listening = broker.listen()
    message = await asyncio.wait_for(anext(listening), timeout=5)

    assert message.data == body
    await listening.aclose()
    await broker.shutdown()


async def test_an_entry_that_was_delivered_to_a_lost_connection_is_handled_by_the_next_one(
    redis: Redis, redis_url: str
) -> None:
    notes = Notes()

    async with Proxy(redis_url) as proxy, working(proxy.url, notes) as broker:
        assert isinstance(broker, StreamBroker)
        await wait_until(lambda: _is_consuming(broker), what="consuming")
        await proxy.cut()
        body = json.dumps(envelope(NOTE.name, {"number": 1})).encode()
        await redis.xadd(RUNS, {"data": body})
        # Redis may have answered the connection that was cut: the same state, without the race.
        await redis.xreadgroup(GROUP, broker.consumer_name, {RUNS: ">"})
        await proxy.restore()
        await notes.have(1)
        await wait_until(lambda: is_empty(redis), what="the acknowledgement")


async def test_an_entry_that_is_being_handled_is_not_handled_again_after_a_cut(
    redis: Redis, redis_url: str
) -> None:
    seen: list[int] = []
    release = asyncio.Event()

    async def handler(note: Note) -> None:
        seen.append(note.number)
        if note.number == 1:
            await release.wait()

    async def has_seen(number: int) -> bool:
        return number in seen

    async with (
        Proxy(redis_url) as proxy,
        working(proxy.url, handler) as broker,
        sending(redis_url) as queue,
    ):
        assert isinstance(broker, StreamBroker)
        await queue.send(NOTE, Note(number=1))
        await wait_until(lambda: has_seen(1), what="the first entry")
        await proxy.cut()
        await wait_until(lambda: _is_disconnected(broker), what="the lost connection")
        await proxy.restore()
        await queue.send(NOTE, Note(number=2))
        await wait_until(lambda: has_seen(2), what="the second entry")
        release.set()
        await wait_until(lambda: is_empty(redis), what="both acknowledgements")

    assert seen == [1, 2]


async def _is_consuming(broker: StreamBroker) -> bool:
    try:
        await broker.ping()
    except Unavailable:
        return False
    return True


async def _is_disconnected(broker: StreamBroker) -> bool:
    return not await _is_consuming(broker)


async def test_a_send_fails_immediately_while_redis_is_unreachable() -> None:
    async with sending("redis://127.0.0.1:1/0", timeout=timedelta(minutes=1)) as queue:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(queue.send(NOTE, Note(number=1)), timeout=10)
