"""Reads of reports from Postgres, buffered or streamed.

    Postgres ── COPY ──▶ Pipe (bounded) ──▶ ReportStream ──▶ client

A slow client fills the pipe, and a full pipe pauses the COPY, so memory stays bounded (P12). The
connection returns to the pool when the COPY is complete: a report that fits into the pipe, or a
small one that is read without COPY, occupies no connection while it is sent.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, timedelta

from daybook_api.pipe import Pipe
from daybook_api.read_connections import ReadConnections, outages_as_unavailable
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
    """A reader of reports."""

    def __init__(
        self,
        *,
        small_reads: ReadConnections,
        streams: ReadConnections,
        stall_timeout: timedelta,
    ) -> None:
        """Use `small_reads` for editions and small reports, `streams` for all others.

        They are apart, so that slow readers of streams do not block small reads. `stall_timeout`
        limits a statement or stream that makes no progress.
        """
        self._small_reads = small_reads
        self._streams = streams
        self._stall_timeout = stall_timeout

    async def get_edition(self, day: date) -> Edition:
        """Return the edition of the report of `day`, without its rows. Raises `Unavailable`."""
        with outages_as_unavailable():
            async with self._small_reads.acquire() as connection:
                line = await connection.fetchval(
                    rendering.EDITION_QUERY, day, timeout=self._stall_timeout.total_seconds()
                )
        return rendering.parse_edition(day, line)

    async def find_small(self, day: date, format: Format) -> ReportDocument | None:
        """Return the report of `day`, or None when it has too many rows to be buffered.

        Raises `Unavailable`.
        """
        with outages_as_unavailable():
            async with self._small_reads.acquire() as connection:
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
            with outages_as_unavailable():
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
            async with self._streams.acquire() as connection:
                await connection.copy_from_query(query, output=pipe.write)
                pipe.end()
        except Exception as error:
            pipe.end(error)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
