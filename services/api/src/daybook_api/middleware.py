"""ASGI middleware: request ids, metrics, access log, body limit and unhandled exceptions."""

import re
from time import perf_counter
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daybook_api import error_handlers

log = structlog.stdlib.get_logger(__name__)

SLOW_REQUEST_SECONDS = 1.0
MAX_BODY_BYTES = 1_000_000

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class RequestMiddleware:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter(
            "daybook_http_requests",
            "Number of HTTP responses.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "daybook_http_request_seconds",
            "Time from the head of a request to the last byte of its response.",
            ["method", "route"],
            registry=registry,
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        _drop_trailing_slash(scope)
        status = received_bytes = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        async def receive_limited() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > MAX_BODY_BYTES:
                # FastAPI reports any other exception here as a body that cannot be parsed.
                raise HTTPException(413, f"The body is larger than {MAX_BODY_BYTES:,} bytes.")
            return message

        # Never unbound: each request has a task, and with it a context, of its own.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive_limited, send_with_id)
        except Exception as error:
            response = error_handlers.response_to_exception(scope, error)
            # Once a response has started, the only way to signal the error is to return: the
            # server then closes the connection, and the client sees a truncated response.
            if not status:
                await response(scope, receive, send_with_id)
        self._record(scope, status=status, seconds=perf_counter() - started)

    def _record(self, scope: Scope, *, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        # Route templates rather than paths, so that the number of label values is bounded.
        route = getattr(scope.get("route"), "path", "unmatched")
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)
        # Successful fast reads are frequent, and the metrics already count them.
        if method in {"GET", "HEAD"} and status < 400 and seconds < SLOW_REQUEST_SECONDS:
            return
        log.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            seconds=round(seconds, 4),
        )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        # The id appears in logs and response headers, so it must not inject other text there.
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id: str = value.decode()
            return request_id
    return uuid4().hex


def _drop_trailing_slash(scope: Scope) -> None:
    """Make `/report/` equal to `/report`; a redirect would cost the client a round trip."""
    path = scope["path"]
    if path.endswith("/") and path != "/":
        scope["path"] = path.rstrip("/") or "/"
