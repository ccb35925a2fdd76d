"""How is a server driven without the client being what is measured?

A client that parses HTTP would take longer than the server. The answers compared here have the same
length each time, so it is enough to count bytes.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Self

from tests.support.processes import Service

ROOT = Path(__file__).parents[2]


class Connection:
    """One kept-alive connection that asks for the same thing again and again."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._request = request
        self._length = 0

    @classmethod
    async def open(cls, port: int, path: str, **headers: str) -> Self:
        """Connect, ask once, and learn how long the answer is."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = [f"GET {path} HTTP/1.1", "Host: bench"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self = cls(reader, writer, "\r\n".join([*lines, "", ""]).encode())
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.split()[1] in {b"200", b"304"}, head
        self._length = len(head) + await self._body(head)
        return self

    async def _body(self, head: bytes) -> int:
        if b"chunked" in head:
            return len(await self._reader.readuntil(b"\r\n0\r\n\r\n"))
        _, found, rest = head.partition(b"content-length: ")
        length = int(rest.split()[0]) if found else 0
        await self._reader.readexactly(length)
        return length

    async def ask(self, times: int) -> None:
        """Ask so many times, one after the other."""
        for _ in range(times):
            self._writer.write(self._request)
            await self._reader.readexactly(self._length)

    async def close(self) -> None:
        """End the connection."""
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def connections(
    port: int, path: str, *, count: int, **headers: str
) -> AsyncIterator[list[Connection]]:
    """Yield fresh connections, for those of before would have been idle too long."""
    opened = [await Connection.open(port, path, **headers) for _ in range(count)]
    yield opened
    for connection in opened:
        await connection.close()


async def seconds_for(connections: list[Connection], *, requests: int) -> float:
    """Return how long `requests` take, shared by the connections."""
    begun = perf_counter()
    await asyncio.gather(*(each.ask(requests // len(connections)) for each in connections))
    return perf_counter() - begun


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


async def answers(port: int) -> bool:
    """Tell whether somebody listens on `port`."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def reference(url: str, *, port: int, log: Path) -> Service:
    """Start what serving is compared with: served.py, on one uvicorn worker."""
    command = [
        *("uvicorn", "tests.benchmarks.served:create_app", "--factory", "--port", str(port)),
        *("--no-access-log", "--log-level", "warning"),
    ]
    environment = {"DAYBOOK_DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
    return Service(command, environment=environment, log=log)


def download(port: int, path: str) -> tuple[float, float, int]:
    """Return seconds to the first byte of a body and to its end, and its length with framing."""
    begun = perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head or head.endswith(b"\r\n\r\n"):
            head += connection.recv(65536)
        first = perf_counter() - begun
        length = len(head)
        buffer = bytearray(1 << 18)
        while received := connection.recv_into(buffer):
            length += received
    return first, perf_counter() - begun, length


def slow_reader(port: int, path: str) -> socket.socket:
    """Return a connection that has asked, and takes nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    return connection
