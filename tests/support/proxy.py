"""How is a network cut between a service and its server, without touching the server?"""

import asyncio
from contextlib import suppress
from typing import Self

from yarl import URL


class Proxy:
    """Forwards TCP connections to the server of `url`, until told otherwise.

    `cut` ends all connections and refuses new ones; `swallow` keeps and accepts connections but
    lets nothing through; `mend` takes either back.
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
        """The server's URL, by way of this proxy."""
        return str(self._target.with_host("127.0.0.1").with_port(self._port))

    async def mend(self) -> None:
        """Let everything through again."""
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all connections, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def swallow(self) -> None:
        """Let nothing through, and tell nobody."""
        self._flowing.clear()

    async def __aenter__(self) -> Self:
        """Start forwarding."""
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all."""
        await self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(OSError, asyncio.CancelledError):
            # It may have been accepted in the very moment of a cut, which did not see it.
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
