"""Read-only connections for bytes that Postgres renders: reports and single entities."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import asyncpg

from daybook_domain.errors import Unavailable
from daybook_domain.postgres_errors import is_outage


class ReadConnections:
    """A pool whose connections are acquired within a bounded time and discarded after an error."""

    def __init__(
        self, pool: asyncpg.Pool, *, acquire_timeout: timedelta = timedelta(seconds=5)
    ) -> None:
        """Use `pool`; `acquire_timeout` limits the wait for a free connection."""
        self._pool = pool
        self._acquire_timeout = acquire_timeout

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        """Yield a connection. Raises `Unavailable` when none becomes free in time."""
        try:
            # acquire(timeout=) would create a task for each call.
            async with asyncio.timeout(self._acquire_timeout.total_seconds()):
                connection = await self._pool.acquire()
        except TimeoutError as error:
            if self._pool.get_size() < self._pool.get_max_size():
                raise
            raise Unavailable("Too many reports are being read; please try again.") from error
        try:
            yield connection
        except BaseException:
            # The rest of a COPY may be in transit. The server cancels it when the connection
            # closes; waiting for its end would occupy a place in the pool meanwhile.
            connection.terminate()
            raise
        finally:
            await self._pool.release(connection)


@contextlib.contextmanager
def outages_as_unavailable() -> Iterator[None]:
    """Raise `Unavailable` in place of an error that means that Postgres is unavailable."""
    try:
        yield
    except Exception as error:
        if is_outage(error):
            raise Unavailable("The database cannot be reached; please try again.") from error
        raise
