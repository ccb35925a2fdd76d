"""What happens to every request? It gets an id, a line in the metrics, and always an answer."""

import re
from time import perf_counter
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daybook_api import errors

log = structlog.stdlib.get_logger(__name__)

SLOW_SECONDS = 1.0
MAX_BODY_BYTES = 1_000_000
_ACCEPTABLE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class RequestMiddleware:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter(
            "daybook_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "daybook_http_request_seconds",
            "From a request's head to the last byte of its answer.",
            ["method", "route"],
            registry=registry,
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        _drop_trailing_slash(scope)
        status = received = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        async def receive_within_bounds() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                # FastAPI takes any other error here for a body that cannot be understood.
                raise HTTPException(413, f"The body is larger than {MAX_BODY_BYTES:,} bytes.")
            return message

        # Never unbound: a request has a task, and with it a context, of its own.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive_within_bounds, send_with_id)
        except Exception as error:
            answer = errors.unexpected(scope, error)
            # With an answer begun, all that is left is to return: the server then closes the
            # connection, and the client sees that the answer was cut off.
            if not status:
                await answer(scope, receive, send_with_id)
        self._record(scope, status, perf_counter() - began)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        # Templates, not paths: there is a bounded number of them.
        route = getattr(scope.get("route"), "path", "unmatched")
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)
        # Reads that go well are many, and tell nothing that the metrics do not.
        if method in {"GET", "HEAD"} and status < 400 and seconds < SLOW_SECONDS:
            return
        log.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            seconds=round(seconds, 4),
        )


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        # What goes into the log and back to the client must not carry anything else with it.
        if name == b"x-request-id" and _ACCEPTABLE_ID.fullmatch(value):
            given: str = value.decode()
            return given
    return uuid4().hex


def _drop_trailing_slash(scope: Scope) -> None:
    """Make `/report/` the same as `/report`; a redirect would cost the caller a round trip."""
    path = scope["path"]
    if path.endswith("/") and path != "/":
        scope["path"] = path.rstrip("/") or "/"
