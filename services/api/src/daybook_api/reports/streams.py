"""How do the bytes of a day flow from Postgres to a reader?

    Postgres ── COPY ──▶ Pipe (bounded) ──▶ reader

A slow reader fills the pipe, the pipe stops the COPY, and nothing grows (P12). A day that fits into
the pipe, and a small one that takes no COPY, hold no connection while they are sent.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import asyncpg

from daybook_domain.errors import Unavailable
from daybook_domain.postgres_errors import is_outage
from daybook_domain.reports import rendering
from daybook_domain.reports.rendering import Edition, Format

MAX_BUFFERED_BYTES = 256 * 1024
"""What a stream may hold in memory, give or take a piece of up to 256 KiB."""

MIN_FIRST_CHUNK_BYTES = 16 * 1024
"""What makes a first piece worth sending; a smaller day is sent as a whole."""


class Pipe:
    """A bounded buffer between one writer and one reader."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self.held_bytes = 0
        self._error: Exception | None = None
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        self.ended = False

    async def write(self, piece: bytes) -> None:
        """Add a piece; returns when there is room for more."""
        self._pieces.append(piece)
        self.held_bytes += len(piece)
        self._news.set()
        while self.held_bytes > MAX_BUFFERED_BYTES:
            self._room.clear()
            await self._room.wait()

    def end(self, error: Exception | None = None) -> None:
        """Say that nothing follows: all was written, or `error` ended it."""
        self.ended = True
        self._error = error
        self._news.set()

    async def ready(self) -> None:
        """Return when a first piece is worth reading, or nothing follows. Raises what ended it."""
        while self.held_bytes < MIN_FIRST_CHUNK_BYTES and not self.ended:
            self._news.clear()
            await self._news.wait()
        if self._error is not None:
            raise self._error

    async def read(self) -> bytes:
        """Take the next piece; `b""` when all was read. Raises what ended it too soon."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.ended:
                return b""
            self._news.clear()
            await self._news.wait()
        piece = self._pieces.popleft()
        self.held_bytes -= len(piece)
        self._room.set()
        return piece


@dataclass(frozen=True)
class ReportStream:
    """A report on its way. Whoever opened it closes it, whatever happened."""

    edition: Edition
    patience: timedelta
    _copying: asyncio.Task[None]
    _head: bytes
    _pipe: Pipe
    _framing: rendering.Framing

    @property
    def held_bytes(self) -> int:
        """How much of it waits in memory."""
        return self._pipe.held_bytes

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the document, piece by piece. Raises when it cannot be completed."""
        piece = self._head
        while True:
            for framed in self._framing.rows(piece):
                yield framed
            async with asyncio.timeout(self.patience.total_seconds()):
                piece = await self._pipe.read()
            if not piece:
                break
        yield self._framing.end()

    async def close(self) -> None:
        """Stop the COPY if it is still going on, and give its connection back."""
        await _stop(self._copying)


@dataclass(frozen=True)
class ReportDocument:
    """A report in memory."""

    edition: Edition
    body: bytes


class ReportReader:
    """Reads reports, each by a connection of the stream pool."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        *,
        patience: timedelta,
        free_within: timedelta = timedelta(seconds=5),
    ) -> None:
        """Read by way of `pool`.

        `patience` is for what moves nothing, `free_within` for a pool whose connections are taken.
        """
        self._pool = pool
        self._patience = patience
        self._free_within = free_within

    async def edition(self, day: date) -> Edition:
        """Tell which edition of `day` there is, without its rows. Raises `Unavailable`."""
        with _translated():
            async with self._connection() as connection:
                line = await connection.fetchval(
                    rendering.EDITION_QUERY, day, timeout=self._patience.total_seconds()
                )
        return rendering.parse_edition(day, line)

    async def small(self, day: date, format: Format) -> ReportDocument | None:
        """Return the document of `day`, or None when it is too long to be had at once.

        Raises `Unavailable`.
        """
        with _translated():
            async with self._connection() as connection:
                found = await connection.fetchrow(
                    rendering.small_query(format), day, timeout=self._patience.total_seconds()
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

    async def open(self, day: date, format: Format) -> ReportStream:
        """Begin to read `day`; returns as soon as there is something to send, or all of it.

        Raises `Unavailable`.
        """
        pipe = Pipe()
        copying = asyncio.create_task(self._copy(rendering.copy_query(day, format), pipe))
        try:
            with _translated():
                async with asyncio.timeout(self._patience.total_seconds()):
                    await pipe.ready()
            line, _, head = (await pipe.read()).partition(b"\n")
        except BaseException:
            await _stop(copying)
            raise
        return ReportStream(
            edition=rendering.parse_edition(day, line),
            patience=self._patience,
            _copying=copying,
            _head=head,
            _pipe=pipe,
            _framing=rendering.Framing(format),
        )

    async def _copy(self, query: str, pipe: Pipe) -> None:
        """Fill `pipe`. Raises no error, for the pipe carries it to the reader."""
        try:
            async with self._connection() as connection:
                await connection.copy_from_query(query, output=pipe.write)
                pipe.end()
        except Exception as error:
            pipe.end(error)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        try:
            # acquire(timeout=) would make a task of each of its calls.
            async with asyncio.timeout(self._free_within.total_seconds()):
                connection = await self._pool.acquire()
        except TimeoutError as error:
            if self._pool.get_size() < self._pool.get_max_size():
                raise
            raise Unavailable("Too many reports are being read; please try again.") from error
        try:
            yield connection
        except BaseException:
            # The rest of a COPY may be on its way already. The server ends it when the connection
            # is gone; to wait for that would keep its place in the pool.
            connection.terminate()
            raise
        finally:
            await self._pool.release(connection)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_outage(error):
            raise Unavailable("The database cannot be reached; please try again.") from error
        raise


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
