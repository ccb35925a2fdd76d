"""HTTP server of `/healthz`, `/readyz` and `/metrics` for services without REST.

docs/adr/0009 says why it is not Starlette on uvicorn.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from daybook_domain.errors import DaybookError

log = structlog.stdlib.get_logger(__name__)

Check = Callable[[], Awaitable[None]]
"""Returns when the dependency responds, raises when it does not."""

_MAX_HEAD_BYTES = 16 * 1024
_CLIENT_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class _Response:
    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


class HealthServer:
    """A server of GET and HEAD, with one request per connection.

    - `/healthz`: 200 while the event loop runs, independently of dependencies, so that an
      unavailable database does not get the process restarted.
    - `/readyz`: the result of each of `checks` by name; 200 if all pass within `timeout` seconds,
      otherwise 503. The body also has what `details` returns, which does not affect the status.
    - `/metrics`: the metrics in `registry`, for Prometheus.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        checks: Mapping[str, Check],
        registry: CollectorRegistry,
        timeout: float = 2.0,
        details: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        self._host = host
        self._requested_port = port
        self._checks = checks
        self._registry = registry
        self._timeout = timeout
        self._details = details
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that the server listens on, also if port 0 was requested."""
        if self._server is None:
            raise RuntimeError("the health server has not been started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Start listening. Raises `SystemExit(2)` if the port is not available."""
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host, self._requested_port, limit=_MAX_HEAD_BYTES
            )
        except OSError as error:
            _log_port_unavailable(self._host, self._requested_port, error)
            raise SystemExit(2) from None
        log.info("health server started", host=self._host, port=self.port)

    async def stop(self) -> None:
        """Stop listening; requests in progress are aborted."""
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), timeout=1)
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that disconnects, sends garbage or is too slow is not worth a traceback.
        with contextlib.suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(_CLIENT_TIMEOUT_SECONDS + self._timeout):
                head = await reader.readuntil(b"\r\n\r\n")
                method, path = _request_line(head)
                writer.write(_encode(method, await self._respond(method, path)))
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), timeout=1)

    async def _respond(self, method: str, path: str) -> _Response:
        if method not in {"GET", "HEAD"}:
            return _json_response(
                HTTPStatus.METHOD_NOT_ALLOWED, {"detail": "method not allowed; use GET or HEAD"}
            )
        match path.partition("?")[0]:
            case "/healthz":
                return _json_response(HTTPStatus.OK, {"status": "ok"})
            case "/readyz":
                return await self._readiness()
            case "/metrics":
                return _Response(
                    HTTPStatus.OK, generate_latest(self._registry), CONTENT_TYPE_LATEST
                )
        return _json_response(
            HTTPStatus.NOT_FOUND, {"detail": "not found; use /healthz, /readyz or /metrics"}
        )

    async def _readiness(self) -> _Response:
        results = await asyncio.gather(*(self._run(check) for check in self._checks.values()))
        ready = all(result == "ok" for result in results)
        return _json_response(
            HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
            {
                "status": "ready" if ready else "not ready",
                "checks": dict(zip(self._checks, results, strict=True)),
                **self._details(),
            },
        )

    async def _run(self, check: Check) -> str:
        try:
            async with asyncio.timeout(self._timeout):
                await check()
        except TimeoutError:
            return f"no response within {self._timeout:g} s"
        except DaybookError as error:
            return error.detail
        except Exception as error:
            # Only the type: the text of a library's error may contain an address or a password.
            return type(error).__name__
        return "ok"


def _log_port_unavailable(host: str, port: int, error: OSError) -> None:
    log.error(
        f"DAYBOOK_HEALTH_PORT: cannot listen on {host}:{port}; expected a free port (0 takes any)",
        reason=error.strerror or str(error),
    )


def _request_line(head: bytes) -> tuple[str, str]:
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    return method, rest.partition(" ")[0]


def _json_response(status: HTTPStatus, content: Mapping[str, object]) -> _Response:
    return _Response(status, json.dumps(content).encode())


def _encode(method: str, response: _Response) -> bytes:
    head = (
        f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n"
        f"Content-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
    return head if method == "HEAD" else head + response.body
