"""What do the tests of the cache share? A server of their own."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from daybook_embedded.data_directory import scratch_folder
from daybook_embedded.valkey import ValkeyServer


@pytest.fixture
async def private() -> AsyncIterator[ValkeyServer]:
    """Return a Redis that a test may do harm to."""
    with scratch_folder() as folder:
        server = ValkeyServer(folder)
        await asyncio.to_thread(server.start)
        yield server
        await asyncio.to_thread(server.stop)
