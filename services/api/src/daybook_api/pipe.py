"""A bounded in-memory buffer between one writer and one reader."""

import asyncio
from collections import deque

MAX_BUFFERED_BYTES = 256 * 1024
"""Size above which the writer waits; the last piece may exceed it, by up to 256 KiB."""

MIN_FIRST_CHUNK_BYTES = 16 * 1024
"""Minimum size of a first chunk, so that a smaller report is sent as a whole."""


class Pipe:
    """A bounded buffer between one writer and one reader."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self.buffered_bytes = 0
        self._error: Exception | None = None
        self._writable = asyncio.Event()
        self._changed = asyncio.Event()
        self._ended = False

    async def write(self, piece: bytes) -> None:
        """Append a piece, then wait until the buffer is below its limit."""
        self._pieces.append(piece)
        self.buffered_bytes += len(piece)
        self._changed.set()
        while self.buffered_bytes > MAX_BUFFERED_BYTES:
            self._writable.clear()
            await self._writable.wait()

    def end(self, error: Exception | None = None) -> None:
        """Mark the end of the data: complete, or cut short by `error`."""
        self._ended = True
        self._error = error
        self._changed.set()

    async def wait_for_first_chunk(self) -> None:
        """Wait until a first chunk is worth sending or the data has ended. Raises its error."""
        while self.buffered_bytes < MIN_FIRST_CHUNK_BYTES and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error

    async def read(self) -> bytes:
        """Wait for and return the next piece; `b""` at the end. Raises the error that ended it."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        piece = self._pieces.popleft()
        self.buffered_bytes -= len(piece)
        self._writable.set()
        return piece
