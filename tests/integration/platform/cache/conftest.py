"""Fixtures of the cache tests: a private Redis server, a row, and processes that cache it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from daybook_embedded.data_directory import scratch_folder
from daybook_embedded.valkey import ValkeyServer
from tests.integration.platform.cache.process import Process, Row, running


@pytest.fixture
async def private_server() -> AsyncIterator[ValkeyServer]:
    """Return a Redis server that a test may stop, pause and restart."""
    with scratch_folder() as folder:
        server = ValkeyServer(folder)
        await asyncio.to_thread(server.start)
        yield server
        await asyncio.to_thread(server.stop)


@pytest.fixture
def redis(copies: Redis) -> Redis:
    """Return a client of the cache's database, which is empty."""
    return copies


@pytest.fixture
def cache_url(copies_url: str) -> str:
    """Return the URL of the cache's database."""
    return copies_url


@pytest.fixture
def row() -> Row:
    """Return a row with the value 0."""
    return Row()


@pytest.fixture
async def ours(redis: Redis, cache_url: str, row: Row) -> AsyncIterator[Process]:
    """Return a process that caches the row."""
    async with running(cache_url, row) as process:
        yield process


@pytest.fixture
async def theirs(ours: Process, cache_url: str, row: Row) -> AsyncIterator[Process]:
    """Return a second process, started after the first."""
    async with running(cache_url, row) as process:
        yield process
