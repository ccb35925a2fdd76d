"""Reads of reports from Postgres, buffered or streamed.

    Postgres ── COPY ──▶ Pipe (bounded) ──▶ ReportStream ──▶ client

A slow client fills the pipe, and a full pipe pauses the COPY, so memory stays bounded (P12). The
connection returns to the pool when the COPY is complete: a report that fits into the pipe, or a
small one that is read without COPY, occupies no connection while it is sent.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import asyncpg

from daybook_api.reports.pipe import Pipe
from daybook_domain.errors import Unavailable
from daybook_domain.postgres_errors import is_outage
from daybook_domain.reports import rendering
from daybook_domain.reports.rendering import Edition, Format


@dataclass(frozen=True)
class ReportStream:
    """A report while it is read. Its opener must close it, also after an error."""

    edition: Edition
    stall_timeout: timedelta
    _copying: asyncio.Task[None]
    _head: bytes
    _pipe: Pipe
    _framing: rendering.Framing

    @property
    def buffered_bytes(self) -> int:
        """The size of the data in memory that was not read yet."""
        return self._pipe.buffered_bytes

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the document in pieces. Raises when it cannot be completed."""
        piece = self._head
        while True:
            for framed in self._framing.rows(piece):
                yield framed
            async with asyncio.timeout(self.stall_timeout.total_seconds()):
                piece = await self._pipe.read()
            if not piece:
                break
        yield self._framing.end()

    async def close(self) -> None:
        """Stop the COPY, if it is still active, and release its connection."""
        await _cancel(self._copying)


@dataclass(frozen=True)
class ReportDocument:
    """A complete report in memory."""

    edition: Edition
    body: bytes


class ReportReader:
    """A reader of reports that uses the connections of the stream pool."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        *,
        stall_timeout: timedelta,
        acquire_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        """Read by connections of `pool`.

        `stall_timeout` limits a statement or stream that makes no progress, `acquire_timeout` the
        wait for a free connection.
        """
        self._pool = pool
        self._stall_timeout = stall_timeout
        self._acquire_timeout = acquire_timeout

    async def get_edition(self, day: date) -> Edition:
        """Return the edition of the report of `day`, without its rows. Raises `Unavailable`."""
        with _outages_as_unavailable():
            async with self._connection() as connection:
                line = await connection.fetchval(
                    rendering.EDITION_QUERY, day, timeout=self._stall_timeout.total_seconds()
                )
        return rendering.parse_edition(day, line)

    async def find_small(self, day: date, format: Format) -> ReportDocument | None:
        """Return the report of `day`, or None when it has too many rows to be buffered.

        Raises `Unavailable`.
        """
        with _outages_as_unavailable():
            async with self._connection() as connection:
                found = await connection.fetchrow(
                    rendering.small_query(format),
                    day,
                    timeout=self._stall_timeout.total_seconds(),
                )
        if found is None:
            return ReportDocument(
                rendering.parse_edition(day, None), rendering.document(format, None)
            )
        if not found["is_small"]:
            return None
        return ReportDocument(
            rendering.parse_edition(day, found["edition"]),
            rendering.document(format, found["rows"]),
        )

    async def open_stream(self, day: date, format: Format) -> ReportStream:
        """Start to read the report of `day`; return when a first chunk, or all of it, was read.

        Raises `Unavailable`.
        """
        pipe = Pipe()
        copying = asyncio.create_task(self._copy(rendering.copy_query(day, format), pipe))
        try:
            with _outages_as_unavailable():
                async with asyncio.timeout(self._stall_timeout.total_seconds()):
                    await pipe.wait_for_first_chunk()
            line, _, head = (await pipe.read()).partition(b"\n")
        except BaseException:
            await _cancel(copying)
            raise
        return ReportStream(
            edition=rendering.parse_edition(day, line),
            stall_timeout=self._stall_timeout,
            _copying=copying,
            _head=head,
            _pipe=pipe,
            _framing=rendering.Framing(format),
        )

    async def _copy(self, query: str, pipe: Pipe) -> None:
        """Fill `pipe`. Raises nothing: the pipe passes an error on to its reader."""
        try:
            async with self._connection() as connection:
                await connection.copy_from_query(query, output=pipe.write)
                pipe.end()
        except Exception as error:
            pipe.end(error)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
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
def _outages_as_unavailable() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_outage(error):
            raise Unavailable("The database cannot be reached; please try again.") from error
        raise


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
