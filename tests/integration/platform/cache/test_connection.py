"""Connecting to Redis after missed invalidations and server restarts."""

import asyncio
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from daybook_embedded.valkey import ValkeyServer
from daybook_platform.cache.connection import CacheConnection, CacheUnavailable
from tests.support.copies import in_use
from tests.support.waiting import until

TIMEOUT = timedelta(seconds=10)


async def test_an_invalidation_missed_while_connecting_repeats_on_connect(cache_url: str) -> None:
    registry = CollectorRegistry()
    called = asyncio.Event()

    async def on_connect(redis: Redis) -> None:
        await redis.ping()
        if not called.is_set():
            # A commit ends at this moment, and finds the cache disconnected.
            connection.require_new_epoch()
        called.set()

    connection = CacheConnection(
        cache_url, registry=registry, timeout=TIMEOUT, on_connect=on_connect
    )
    await connection.open()
    assert called.is_set()
    with pytest.raises(CacheUnavailable):
        await connection.execute(lambda redis: redis.ping())

    async def connected() -> bool:
        return in_use(registry)

    await until(connected, what="the second call of on_connect")
    assert await connection.execute(lambda redis: redis.ping())
    await connection.close()


async def test_a_redis_restarted_between_two_commands_is_connected_anew(
    private_server: ValkeyServer,
) -> None:
    registry = CollectorRegistry()
    connection = CacheConnection(
        private_server.url,
        registry=registry,
        timeout=TIMEOUT,
        on_connect=lambda redis: redis.ping(),
    )
    await connection.open()
    # Then no open connection can fail first.
    await connection.execute(lambda redis: redis.connection_pool.disconnect())
    await asyncio.to_thread(private_server.stop)
    await asyncio.to_thread(private_server.start)
    with pytest.raises(CacheUnavailable):
        await connection.execute(lambda redis: redis.ping())

    async def connected() -> bool:
        return in_use(registry)

    await until(connected, what="connecting to the restarted server")
    assert await connection.execute(lambda redis: redis.ping())
    await connection.close()
