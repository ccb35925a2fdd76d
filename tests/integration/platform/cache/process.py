"""One process with a cache, and the row that it caches."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from prometheus_client import CollectorRegistry

from daybook_domain.cache_invalidation import EntityKey, EntityKind
from daybook_platform.cache.client import Cache
from tests.support.copies import in_use
from tests.support.waiting import until

TEA = EntityKey(EntityKind.PRODUCT, 1)
KEY = "daybook:product:1"

# Long enough for a busy machine; short where a test waits for the timeout.
TIMEOUT, SHORT_TIMEOUT = timedelta(seconds=10), timedelta(seconds=1)


class Row:
    """The row in the database, with a count of fetches."""

    def __init__(self) -> None:
        self.value = 0
        self.fetches = 0

    async def fetch(self) -> bytes:
        """Return the value."""
        self.fetches += 1
        return b"%d" % self.value


class Process:
    """A process with a cache and metrics."""

    def __init__(self, url: str, row: Row, *, timeout: timedelta) -> None:
        self.registry = CollectorRegistry()
        self.cache = Cache(url, registry=self.registry, timeout=timeout)
        self._row = row

    async def read(self, fetch: Callable[[], Awaitable[bytes]] | None = None) -> int:
        """Return the value of the row, read through the cache."""
        return int(await self.cache.read(TEA, fetch or self._row.fetch, shape=b"1"))

    async def write(self, value: int) -> None:
        """Change the row with the cache calls of a session's commit."""
        commit = await self.cache.begin_commit([TEA])
        self._row.value = value
        await self.cache.end_commit(commit)

    async def until_connected(self) -> None:
        """Wait until the cache is connected."""

        async def connected() -> bool:
            return in_use(self.registry)

        await until(connected, what="the cache to connect")


@asynccontextmanager
async def running(url: str, row: Row, *, timeout: timedelta = TIMEOUT) -> AsyncIterator[Process]:
    """Run a process with its cache."""
    process = Process(url, row, timeout=timeout)
    async with process.cache:
        yield process
