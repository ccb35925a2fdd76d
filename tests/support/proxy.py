"""A TCP proxy that simulates network failures between a service and a server."""

import asyncio
from contextlib import suppress
from typing import Self

from yarl import URL


class Proxy:
    """A proxy that forwards TCP connections to the server at `url`.

    - `cut` aborts all connections and refuses new ones.
    - `stall` accepts connections but forwards no data; `stall_open` does so with the connections of
      this moment and forwards new ones, as after a failover by DNS.
    - `stall_reply_to` and `stall_request` stall one connection at the first request that contains a
      text: after it has reached the server, or before.
    - `restore` ends each of these failures.

    Each request reaches the server `delay_seconds` late.
    """

    def __init__(self, url: str, *, delay_seconds: float = 0.0) -> None:
        self._target = URL(url)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._open: set[asyncio.Event] = set()
        self.delay_seconds = delay_seconds
        self._trap = b""
        self._trap_after = b""
        self._trap_forwards = False
        self.trapped = asyncio.Event()
        """Set when a request has silenced its connection."""

    @property
    def url(self) -> str:
        """The URL of the server through this proxy."""
        return str(self._target.with_host("127.0.0.1").with_port(self._port))

    async def restore(self) -> None:
        """Forward connections and data again."""
        self._flowing.set()
        self._trap = b""
        for flowing in self._open:
            flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Abort all connections, and refuse new ones."""
        if self._server is not None:
            server, self._server = self._server, None
            # A connection that is being accepted would fail in a closed server, and leak its
            # socket, so let it be accepted first.
            for listening in server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            await asyncio.sleep(0)
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def stall(self) -> None:
        """Forward no more data, without closing connections."""
        self._flowing.clear()

    def stall_open(self) -> None:
        """Let nothing through on the connections that are open now; new ones work."""
        for flowing in self._open:
            flowing.clear()

    def stall_reply_to(self, text: bytes, *, after: bytes = b"") -> None:
        """Silence the connection whose request contains `text`, once that has been forwarded.

        With `after`, only a connection that has sent that before.
        """
        self._set_trap(text, after=after, forwards=True)

    def stall_request(self, text: bytes, *, after: bytes = b"") -> None:
        """Silence the connection whose request contains `text`, which never reaches the server."""
        self._set_trap(text, after=after, forwards=False)

    def _set_trap(self, text: bytes, *, after: bytes, forwards: bool) -> None:
        self._trap, self._trap_after, self._trap_forwards = text, after, forwards
        self.trapped.clear()

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
        flowing = asyncio.Event()
        flowing.set()
        self._open.add(flowing)
        with suppress(OSError, asyncio.CancelledError):
            # A connection may be accepted while `cut` runs, which then does not abort it.
            if self._server is None:
                raise ConnectionAbortedError
            self._writers.add(writer)
            upstream = await asyncio.open_connection(self._target.host, self._target.port)
            self._writers.add(upstream[1])
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump_requests(reader, upstream[1], flowing))
                group.create_task(self._pump(upstream[0], writer, flowing))
        writer.transport.abort()
        self._open.discard(flowing)
        self._tasks.discard(task)

    async def _pump_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        sent = bytearray()
        with suppress(OSError):
            while data := await reader.read(65536):
                sent += data
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                is_trapped = bool(self._trap) and self._trap in data and self._trap_after in sent
                if is_trapped:
                    self._trap = b""
                    # Before the server gets the request, so that its reply cannot be faster.
                    flowing.clear()
                    self.trapped.set()
                if not (is_trapped and self._trap_forwards):
                    await self._wait(flowing)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._wait(flowing)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def _wait(self, flowing: asyncio.Event) -> None:
        await flowing.wait()
        await self._flowing.wait()
