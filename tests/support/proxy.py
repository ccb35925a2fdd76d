"""A TCP proxy that simulates network failures between a service and a server."""

import asyncio
from contextlib import suppress
from typing import Self

from yarl import URL


class Proxy:
    """A proxy that forwards TCP connections to the server at `url`.

    `cut` aborts all connections and refuses new ones; `stall` accepts connections but forwards no
    data; `restore` ends either failure.
    """

    def __init__(self, url: str) -> None:
        self._target = URL(url)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def url(self) -> str:
        """The URL of the server through this proxy."""
        return str(self._target.with_host("127.0.0.1").with_port(self._port))

    async def restore(self) -> None:
        """Forward connections and data again."""
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Abort all connections, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def stall(self) -> None:
        """Forward no more data, without closing connections."""
        self._flowing.clear()

    async def __aenter__(self) -> Self:
        """Start forwarding."""
        await self.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Abort all connections and stop."""
        await self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(OSError, asyncio.CancelledError):
            # A connection may be accepted while `cut` runs, which then does not abort it.
            if self._server is None:
                raise ConnectionAbortedError
            self._writers.add(writer)
            upstream = await asyncio.open_connection(self._target.host, self._target.port)
            self._writers.add(upstream[1])
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, upstream[1]))
                group.create_task(self._pump(upstream[0], writer))
        writer.transport.abort()
        self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
