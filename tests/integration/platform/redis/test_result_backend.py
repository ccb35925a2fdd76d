"""Storage of task results in Redis."""

import json

import pytest
from redis.asyncio import Redis

from tests.integration.platform.notes import NOTE, Note, Notes, sending, working
from tests.support.amqp import AmqpClient
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq


async def test_an_unavailable_redis_does_not_affect_tasks(amqp: AmqpClient, redis_url: str) -> None:
    notes = Notes()

    async with Proxy(redis_url) as redis:
        await redis.cut()
        async with (
            working(amqp.url, notes, redis_url=redis.url),
            sending(amqp.url) as queue,
        ):
            await queue.send(NOTE, Note(number=1))
            await notes.have(1)
            await redis.restore()
            redis.stall()
            await queue.send(NOTE, Note(number=2))
            await notes.have(1, 2)

    assert await amqp.depth() == 0


async def test_results_are_stored_as_json_with_an_expiry(amqp: AmqpClient, redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(*[key async for key in redis.scan_iter("daybook:result:*")] or ["-"])

        async with working(amqp.url, Notes(), redis_url=redis_url):
            async with sending(amqp.url) as queue:
                await queue.send(NOTE, Note(number=1))
            await wait_until(lambda: _exists(redis, "daybook:result:*"), what="a result")

        (key,) = [key async for key in redis.scan_iter("daybook:result:*")]
        assert json.loads(await redis.get(key) or b"")["is_err"] is False
        assert 0 < await redis.ttl(key) <= 3600


async def _exists(redis: Redis, pattern: str) -> bool:
    return bool([key async for key in redis.scan_iter(pattern)])
