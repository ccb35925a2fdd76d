"""How do services without REST say how they are? `/healthz`, `/readyz`, `/metrics` over HTTP."""

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
"""Returns when the dependency answers, raises when it does not."""

_LARGEST_HEAD_BYTES = 16 * 1024
_CLIENT_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


class HealthServer:
    """Answers GET and HEAD, one request a connection.

    - `/healthz`: 200 as long as the event loop turns; says nothing about dependencies, so that a
      database that is away does not get the process restarted.
    - `/readyz`: each of `checks` by name; 200 if all pass within `timeout` seconds, else 503.
      What `details` gives is told besides, and changes nothing.
    - `/metrics`: what is in `registry`, for Prometheus.
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
        self._wanted_port = port
        self._checks = checks
        self._registry = registry
        self._timeout = timeout
        self._details = details
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, also where port 0 was asked for."""
        if self._server is None:
            raise RuntimeError("the health server has not been started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Start answering; a port that cannot be had ends the process with exit code 2."""
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host, self._wanted_port, limit=_LARGEST_HEAD_BYTES
            )
        except OSError as error:
            raise SystemExit(_refuse(self._host, self._wanted_port, error)) from None
        log.info("health endpoints are up", host=self._host, port=self.port)

    async def stop(self) -> None:
        """Stop answering; requests under way are cut off."""
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
        # A client that breaks off, talks nonsense or falls asleep is not worth a traceback.
        with contextlib.suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(_CLIENT_TIMEOUT_SECONDS + self._timeout):
                head = await reader.readuntil(b"\r\n\r\n")
                method, path = _request_line(head)
                writer.write(_response(method, await self._answer(method, path)))
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), timeout=1)

    async def _answer(self, method: str, path: str) -> _Answer:
        if method not in {"GET", "HEAD"}:
            return _json(HTTPStatus.METHOD_NOT_ALLOWED, {"detail": "only GET and HEAD"})
        match path.partition("?")[0]:
            case "/healthz":
                return _json(HTTPStatus.OK, {"status": "ok"})
            case "/readyz":
                return await self._readiness()
            case "/metrics":
                return _Answer(HTTPStatus.OK, generate_latest(self._registry), CONTENT_TYPE_LATEST)
        return _json(HTTPStatus.NOT_FOUND, {"detail": "try /healthz, /readyz or /metrics"})

    async def _readiness(self) -> _Answer:
        outcomes = await asyncio.gather(*(self._outcome(check) for check in self._checks.values()))
        ready = all(outcome == "ok" for outcome in outcomes)
        return _json(
            HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
            {
                "status": "ready" if ready else "not ready",
                "checks": dict(zip(self._checks, outcomes, strict=True)),
                **self._details(),
            },
        )

    async def _outcome(self, check: Check) -> str:
        try:
            async with asyncio.timeout(self._timeout):
                await check()
        except TimeoutError:
            return f"no answer within {self._timeout:g} s"
        except DaybookError as error:
            return error.detail
        except Exception as error:
            # Only the kind: the text of a foreign error may hold an address or a password.
            return type(error).__name__
        return "ok"


def _refuse(host: str, port: int, error: OSError) -> int:
    log.error(
        f"DAYBOOK_HEALTH_PORT: cannot listen on {host}:{port}; expected a free port (0 takes any)",
        reason=error.strerror or str(error),
    )
    return 2


def _request_line(head: bytes) -> tuple[str, str]:
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    return method, rest.partition(" ")[0]


def _json(status: HTTPStatus, content: Mapping[str, object]) -> _Answer:
    return _Answer(status, json.dumps(content).encode())


def _response(method: str, answer: _Answer) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
    return head if method == "HEAD" else head + answer.body
