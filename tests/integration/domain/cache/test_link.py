"""When is Redis in use? Once nothing is owed to it, and as long as it is the same."""

import asyncio
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from daybook_embedded.valkey import ValkeyServer
from daybook_platform.cache.connection import CacheConnection, CacheUnavailable
from tests.support.copies import in_use
from tests.support.waiting import until

PATIENCE = timedelta(seconds=10)


async def test_what_redis_misses_while_it_is_welcomed_is_made_good(copies_url: str) -> None:
    registry = CollectorRegistry()
    welcomed = asyncio.Event()

    async def welcome(redis: Redis) -> None:
        await redis.ping()
        if not welcomed.is_set():
            # A commit ends at this moment, and finds the link closed.
            link.owe()
        welcomed.set()

    link = CacheConnection(copies_url, registry=registry, patience=PATIENCE, welcome=welcome)
    await link.open()
    assert welcomed.is_set()
    with pytest.raises(CacheUnavailable):
        await link.ask(lambda redis: redis.ping())

    async def up() -> bool:
        return in_use(registry)

    await until(up, what="the second welcome")
    assert await link.ask(lambda redis: redis.ping())
    await link.close()


async def test_a_redis_that_was_restarted_between_two_commands_is_welcomed_anew(
    private: ValkeyServer,
) -> None:
    registry = CollectorRegistry()
    link = CacheConnection(
        private.url, registry=registry, patience=PATIENCE, welcome=lambda redis: redis.ping()
    )
    await link.open()
    # No connection is open that could break.
    await link.ask(lambda redis: redis.connection_pool.disconnect())
    await asyncio.to_thread(private.stop)
    await asyncio.to_thread(private.start)
    with pytest.raises(CacheUnavailable):
        await link.ask(lambda redis: redis.ping())

    async def up() -> bool:
        return in_use(registry)

    await until(up, what="the welcome of the new server")
    assert await link.ask(lambda redis: redis.ping())
    await link.close()
