"""The cache during and after outages of Redis."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from daybook_domain.cache_invalidation import EntityKey, EntityKind
from daybook_embedded.valkey import ValkeyServer
from tests.integration.platform.cache.process import KEY, SHORT_TIMEOUT, TEA, Process, Row, running
from tests.support.copies import counted, failures, is_kept
from tests.support.proxy import Proxy


@pytest.fixture
async def proxied(redis: Redis, cache_url: str, row: Row) -> AsyncIterator[tuple[Process, Proxy]]:
    async with (
        Proxy(cache_url) as proxy,
        running(proxy.url, row, timeout=SHORT_TIMEOUT) as process,
    ):
        yield process, proxy


@pytest.mark.parametrize("outage", ["cut", "swallow"])
async def test_a_redis_outage_costs_few_attempts_and_leaves_no_stale_entries(
    proxied: tuple[Process, Proxy], redis: Redis, row: Row, outage: str
) -> None:
    disconnected, proxy = proxied
    await disconnected.read()
    with capture_logs() as logs:
        if outage == "cut":
            await proxy.cut()
        else:
            proxy.swallow()
        for number in range(1, 201):
            await disconnected.write(number)
            assert await disconnected.read() == number
        # One by a request; the others by the background task in the meantime.
        assert failures(disconnected.registry) < 20
        assert counted(disconnected.registry, "away") >= 199
        assert await is_kept(redis, KEY)
        await proxy.mend()
        await disconnected.until_connected()
    assert await disconnected.read() == 200
    # Another row: the mark that was swallowed before arrives now under KEY, and stays a minute.
    for _ in range(2):
        await disconnected.cache.read(EntityKey(EntityKind.PRODUCT, 2), row.fetch, shape=b"1")
    assert counted(disconnected.registry, "hit") == 1
    assert [line["event"] for line in logs] == [
        "cache unavailable; reading the database",
        "cache connected",
    ]


async def test_a_disconnected_writer_invalidates_all_entries_once_it_reconnects(
    proxied: tuple[Process, Proxy], cache_url: str, row: Row
) -> None:
    disconnected, proxy = proxied
    async with running(cache_url, row) as reader:
        await reader.read()
        await proxy.cut()
        await disconnected.write(1)
        # The remaining risk: until the writer reaches Redis, others read the stale entry.
        assert await reader.read() == 0
        await proxy.mend()
        await disconnected.until_connected()
        assert await reader.read() == 1
        assert failures(reader.registry) == 0


async def test_a_commit_that_ends_during_a_reconnect_still_invalidates(
    proxied: tuple[Process, Proxy], redis: Redis, cache_url: str, row: Row
) -> None:
    disconnected, proxy = proxied
    async with running(cache_url, row) as reader:
        await proxy.cut()
        commit = await disconnected.cache.begin_commit([TEA])
        await proxy.mend()
        # In the new epoch, and before the row is changed.
        await disconnected.until_connected()
        await reader.read()
        row.value = 1
        await disconnected.cache.end_commit(commit)
        assert await reader.read() == 1


async def test_a_process_starts_without_redis(cache_url: str, row: Row) -> None:
    proxy = Proxy(cache_url)
    await proxy.mend()
    url = proxy.url
    await proxy.cut()
    async with running(url, row) as process, proxy:
        await process.write(1)
        assert await process.read() == 1
        await process.until_connected()
        await process.read()
        await process.read()
        assert counted(process.registry, "hit") == 1


async def test_a_starting_process_invalidates_earlier_entries(
    ours: Process, cache_url: str, row: Row
) -> None:
    # Their writer may have died while disconnected from Redis, unnoticed by other processes.
    await ours.read()
    row.value = 1
    async with running(cache_url, row):
        assert await ours.read() == 1


async def test_a_paused_redis_delays_requests_only_briefly(
    private_server: ValkeyServer, row: Row
) -> None:
    async with running(private_server.url, row, timeout=SHORT_TIMEOUT) as process:
        await process.read()
        os.kill(private_server.pid, signal.SIGSTOP)
        try:
            for number in range(1, 201):
                await process.write(number)
                assert await process.read() == number
        finally:
            os.kill(private_server.pid, signal.SIGCONT)
        assert failures(process.registry) < 20
        await process.until_connected()
        assert [await process.read(), await process.read()] == [200, 200]


async def test_entries_that_redis_restored_on_restart_are_invalid(
    private_server: ValkeyServer, row: Row
) -> None:
    async with (
        running(private_server.url, row) as process,
        Redis.from_url(private_server.url) as redis,
    ):
        await process.read()
        # It may have received an invalidation, and lost that in a crash.
        await asyncio.to_thread(private_server.stop)
        row.value = 1
        await asyncio.to_thread(private_server.start)
        assert await is_kept(redis, KEY)
        assert await process.read() == 1
        await process.until_connected()
        assert [await process.read(), await process.read()] == [1, 1]
