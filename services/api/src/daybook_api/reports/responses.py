"""How is a report sent?"""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from daybook_api import etags
from daybook_api.reports.streams import ReportStream
from daybook_domain.reports.models import DayState
from daybook_domain.reports.rendering import Edition, Format

log = structlog.stdlib.get_logger(__name__)


def matches_etag(edition: Edition, format: Format, *, if_none_match: Sequence[str]) -> bool:
    """Tell whether the caller has these very bytes (RFC 9110 §13.1.2, weak comparison)."""
    known = {tag.removeprefix("W/") for tag in etags.named(if_none_match)}
    return edition.etag(format) in known or (
        etags.ANY in known and edition.state is not DayState.ABSENT
    )


class BufferedReport(Response):
    """Sends what is in memory: a small report, or nothing but what is told about one."""

    # Starlette would tell the length of the body; that of a report is told neither here nor there.
    body = None  # type: ignore[assignment]

    def __init__(
        self,
        edition: Edition,
        format: Format,
        *,
        body: bytes = b"",
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        self.status_code = status.value
        self.background = None
        self._document = body
        self.init_headers(_headers(edition, format))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await _start(self, send)
        await send({"type": "http.response.body", "body": self._document})


class StreamedReport(Response):
    """Sends a report, no faster than its reader takes it, and closes the stream in any case.

    When it cannot be completed it just ends: the server then closes the connection, and the
    reader, who waits for the last chunk, sees that something is missing.
    """

    body = None  # type: ignore[assignment]

    def __init__(self, stream: ReportStream, format: Format) -> None:
        self.status_code = HTTPStatus.OK.value
        self.background = None
        self._stream = stream
        self.init_headers(_headers(stream.edition, format))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await self._send_while_listening(receive, send)
        finally:
            await self._stream.close()

    async def _send_while_listening(self, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                _log_failure(sending, self._stream.edition)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.wait([sending, leaving])

    async def _send(self, send: Send) -> None:
        await _start(self, send)
        async for piece in self._stream.pieces():
            # A reader who takes nothing holds a snapshot, which holds back the vacuum.
            async with asyncio.timeout(self._stream.patience.total_seconds()):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _headers(edition: Edition, format: Format) -> dict[str, str]:
    content_type = format.media_type
    if format is Format.CSV:
        content_type += "; charset=utf-8; header=present"
    return {
        "Content-Type": content_type,
        "ETag": edition.etag(format),
        # Keep it, but ask each time: a late order may make a new revision of any day.
        "Cache-Control": "no-cache",
        "Vary": "Accept",
        "Daybook-Report-Date": edition.day.isoformat(),
        "Daybook-Report-State": edition.state,
        "Daybook-Report-Revision": str(edition.revision),
    }


async def _start(response: Response, send: Send) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _log_failure(sending: asyncio.Task[None], edition: Edition) -> None:
    error = sending.exception()
    if isinstance(error, TimeoutError):
        log.warning("a report was cut off: nothing moved for too long", day=str(edition.day))
    elif error is not None:
        log.warning("a report was cut off", day=str(edition.day), error=repr(error))
