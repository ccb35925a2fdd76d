"""A minimal HTTP client whose own cost does not dominate the measurement.

A client that parses HTTP would be slower than the server. The responses of one path have the same
length each time, so counting bytes is sufficient.
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
    """A persistent connection that repeats the same request."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._request = request
        self._length = 0

    @classmethod
    async def open(cls, port: int, path: str, **headers: str) -> Self:
        """Connect, send the request once, and record the length of the response."""
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

    async def repeat(self, times: int) -> None:
        """Send the request `times` times, one after the other."""
        for _ in range(times):
            self._writer.write(self._request)
            await self._reader.readexactly(self._length)

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def connections(
    port: int, path: str, *, count: int, **headers: str
) -> AsyncIterator[list[Connection]]:
    """Yield new connections: the server closes idle ones."""
    opened = [await Connection.open(port, path, **headers) for _ in range(count)]
    yield opened
    for connection in opened:
        await connection.close()


async def seconds_for(connections: list[Connection], *, requests: int) -> float:
    """Return the seconds that `requests` take, divided among the connections."""
    started = perf_counter()
    await asyncio.gather(*(each.repeat(requests // len(connections)) for each in connections))
    return perf_counter() - started


def free_port() -> int:
    """Return a port that is not in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


async def accepts_connections(port: int) -> bool:
    """Return whether a process listens on `port`."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def reference(url: str, *, port: int, log: Path) -> Service:
    """Start the reference application, reference_app.py, on one uvicorn worker."""
    command = [
        *("uvicorn", "tests.benchmarks.reference_app:create_app", "--factory", "--port", str(port)),
        *("--no-access-log", "--log-level", "warning"),
    ]
    environment = {"DAYBOOK_DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
    return Service(command, environment=environment, log=log)


def download(port: int, path: str) -> tuple[float, float, int]:
    """Return the seconds to the first and the last byte of a body, and its length with framing."""
    started = perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head or head.endswith(b"\r\n\r\n"):
            head += connection.recv(65536)
        first = perf_counter() - started
        length = len(head)
        buffer = bytearray(1 << 18)
        while received := connection.recv_into(buffer):
            length += received
    return first, perf_counter() - started, length


def slow_reader(port: int, path: str) -> socket.socket:
    """Return a connection that sent a request and reads nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    return connection
