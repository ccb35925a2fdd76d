"""HTTP responses with a report as the body: buffered, streamed, or without a body."""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from daybook_api import etags
from daybook_api.report_reader import ReportStream
from daybook_domain.reports.models import DayState
from daybook_domain.reports.rendering import Edition, Format

log = structlog.stdlib.get_logger(__name__)


def matches_etag(edition: Edition, format: Format, *, if_none_match: Sequence[str]) -> bool:
    """Return whether the client has these bytes (RFC 9110 section 13.1.2, weak comparison)."""
    known = {tag.removeprefix("W/") for tag in etags.parse_etags(if_none_match)}
    return etags.report_etag(edition, format) in known or (
        etags.ANY in known and edition.state is not DayState.ABSENT
    )


class BufferedReport(Response):
    """A response with a small report, or with the headers of a report and no body."""

    # Starlette would add a Content-Length; reports, buffered or streamed, have none.
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
        """Send the response."""
        await _send_start(self, send)
        await send({"type": "http.response.body", "body": self._document})


class StreamedReport(Response):
    """A response that streams a report as fast as the client reads, and always closes the stream.

    When the report cannot be completed, the response ends without a last chunk: the server closes
    the connection, and the client detects the truncated body.
    """

    body = None  # type: ignore[assignment]

    def __init__(self, stream: ReportStream, format: Format) -> None:
        self.status_code = HTTPStatus.OK.value
        self.background = None
        self._stream = stream
        self.init_headers(_headers(stream.edition, format))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await self._send_until_disconnect(receive, send)
        finally:
            await self._stream.close()

    async def _send_until_disconnect(self, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        disconnecting = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            await asyncio.wait([sending, disconnecting], return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                _log_failure(sending, self._stream.edition)
        finally:
            sending.cancel()
            disconnecting.cancel()
            await asyncio.wait([sending, disconnecting])

    async def _send(self, send: Send) -> None:
        await _send_start(self, send)
        async for piece in self._stream.pieces():
            # A stalled client keeps a snapshot open, which delays vacuum.
            async with asyncio.timeout(self._stream.stall_timeout.total_seconds()):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _headers(edition: Edition, format: Format) -> dict[str, str]:
    content_type = format.media_type
    if format is Format.CSV:
        content_type += "; charset=utf-8; header=present"
    headers = {
        "Content-Type": content_type,
        "ETag": etags.report_etag(edition, format),
        # Clients must revalidate: a late order may create a new revision of any day.
        "Cache-Control": "no-cache",
        "Vary": "Accept",
        "Daybook-Report-Date": edition.day.isoformat(),
        "Daybook-Report-State": edition.state,
        "Daybook-Report-Revision": str(edition.revision),
    }
    if format is Format.CSV:
        name = f"daybook-report-{edition.day}.csv"
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return headers


async def _send_start(response: Response, send: Send) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _log_failure(sending: asyncio.Task[None], edition: Edition) -> None:
    error = sending.exception()
    if isinstance(error, TimeoutError):
        log.warning("report stream aborted: stall timeout", day=str(edition.day))
    elif error is not None:
        log.warning("report stream aborted", day=str(edition.day), error=repr(error))
