"""Integration tests of report streams: completeness, isolation, memory, connections."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date, timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api.pipe import MAX_BUFFERED_BYTES
from daybook_api.read_connections import ReadConnections
from daybook_api.report_reader import ReportReader
from daybook_api.reports.responses import StreamedReport
from daybook_domain.errors import Unavailable
from daybook_domain.reports.rendering import SMALL_ROWS, Format
from daybook_platform.postgres.engine import create_stream_pool
from tests.integration.api.conftest import MakeDay
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

DAY = date(2026, 3, 1)
MANY = 50_000
APPLICATION = "test of streams"


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with create_stream_pool(postgres_url, application=APPLICATION, size=2) as pool:
        yield pool
        pool.terminate()


@pytest.fixture
def reports(pool: asyncpg.Pool) -> ReportReader:
    connections = ReadConnections(pool, acquire_timeout=timedelta(seconds=0.2))
    return ReportReader(
        small_reads=connections, streams=connections, stall_timeout=timedelta(minutes=1)
    )


@pytest.fixture
async def large_report(make_day: MakeDay) -> None:
    await make_day(DAY.isoformat(), rows=MANY)


@pytest.fixture
def all_idle(engine: AsyncEngine) -> Callable[[], Awaitable[bool]]:
    async def none_active() -> bool:
        async with engine.connect() as connection:
            found = await connection.execute(
                text(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database()"
                    " AND application_name = :name AND state <> 'idle'"
                ),
                {"name": APPLICATION},
            )
        return not found.scalar_one()

    return none_active


class Reader:
    """The client of an ASGI response: receives messages once `reading` is set."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.disconnected = asyncio.Event()
        self.body = b""
        self.complete = False

    async def receive(self) -> dict[str, Any]:
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            return
        await self.reading.wait()
        self.body += message["body"]
        self.complete = not message.get("more_body", False)


async def test_a_large_report_is_streamed_completely(
    large_report: None, reports: ReportReader
) -> None:
    stream = await reports.open_stream(DAY, Format.JSON)
    rows = json.loads(b"".join([piece async for piece in stream.pieces()]))
    await stream.close()
    assert [row["order_id"] for row in rows] == list(range(1, MANY + 1))


async def test_a_stream_shows_the_revision_before_a_build_that_commits_meanwhile(
    large_report: None, reports: ReportReader, make_day: MakeDay
) -> None:
    stream = await reports.open_stream(DAY, Format.NDJSON)
    pieces = stream.pieces()
    body = await anext(pieces)
    await make_day(DAY.isoformat(), rows=10, revision=2)
    body += b"".join([piece async for piece in pieces])
    await stream.close()
    assert (stream.edition.revision, body.count(b"\n")) == (1, MANY)
    assert (await reports.get_edition(DAY)).revision == 2


async def test_an_unread_stream_has_bounded_memory(
    large_report: None, reports: ReportReader
) -> None:
    stream = await reports.open_stream(DAY, Format.JSON)
    # The COPY continues until the pipe is full; other queries show that the loop is not blocked.
    await wait_until(lambda: _is(stream.buffered_bytes > MAX_BUFFERED_BYTES), what="a full pipe")
    for _ in range(20):
        await reports.get_edition(DAY)
    assert stream.buffered_bytes < MAX_BUFFERED_BYTES + 512 * 1024
    await stream.close()


async def _is(value: bool) -> bool:  # noqa: FBT001 # the value is the result
    return value


async def test_a_report_that_fits_into_the_pipe_occupies_no_connection_while_it_is_sent(
    make_day: MakeDay, reports: ReportReader
) -> None:
    await make_day(DAY.isoformat(), rows=1500)
    # There are two connections.
    streams = [await reports.open_stream(DAY, Format.JSON) for _ in range(10)]
    for stream in streams:
        assert len(json.loads(b"".join([piece async for piece in stream.pieces()]))) == 1500
        await stream.close()


@pytest.mark.parametrize("rows", [0, 1, 2, SMALL_ROWS])
@pytest.mark.parametrize("form", [*Format])
async def test_buffered_and_streamed_reports_have_the_same_bytes(
    make_day: MakeDay, reports: ReportReader, rows: int, form: Format
) -> None:
    await make_day(DAY.isoformat(), rows=rows)
    small = await reports.find_small(DAY, form)
    stream = await reports.open_stream(DAY, form)
    assert small is not None
    assert small.edition == stream.edition
    assert small.body == b"".join([piece async for piece in stream.pieces()])
    await stream.close()


async def test_a_large_report_is_not_buffered(make_day: MakeDay, reports: ReportReader) -> None:
    await make_day(DAY.isoformat(), rows=SMALL_ROWS + 1)
    assert await reports.find_small(DAY, Format.JSON) is None


async def test_the_copy_ends_when_the_client_disconnects(
    large_report: None,
    reports: ReportReader,
    pool: asyncpg.Pool,
    all_idle: Callable[[], Awaitable[bool]],
) -> None:
    reader = Reader()
    response = StreamedReport(await reports.open_stream(DAY, Format.JSON), Format.JSON)
    answering = asyncio.create_task(response({"type": "http"}, reader.receive, reader.send))
    reader.disconnected.set()
    async with asyncio.timeout(10):
        await answering
    assert not reader.complete
    await wait_until(all_idle, what="the end of the COPY")
    assert (await reports.get_edition(DAY)).revision == 1


async def test_a_stalled_client_is_disconnected(
    large_report: None, pool: asyncpg.Pool, all_idle: Callable[[], Awaitable[bool]]
) -> None:
    connections = ReadConnections(pool)
    impatient = ReportReader(
        small_reads=connections, streams=connections, stall_timeout=timedelta(seconds=0.2)
    )
    reader = Reader()
    response = StreamedReport(await impatient.open_stream(DAY, Format.JSON), Format.JSON)
    async with asyncio.timeout(10):
        await response({"type": "http"}, reader.receive, reader.send)
    assert not reader.complete
    await wait_until(all_idle, what="the end of the COPY")


async def test_a_stream_whose_connection_is_lost_is_not_completed(
    large_report: None, reports: ReportReader, engine: AsyncEngine
) -> None:
    reader = Reader()
    response = StreamedReport(await reports.open_stream(DAY, Format.JSON), Format.JSON)
    answering = asyncio.create_task(response({"type": "http"}, reader.receive, reader.send))
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = :name"
            ),
            {"name": APPLICATION},
        )
    reader.reading.set()
    async with asyncio.timeout(5):
        await answering
    assert not reader.complete
    assert len([piece async for piece in (await reports.open_stream(DAY, Format.CSV)).pieces()]) > 1


async def test_a_stream_whose_database_becomes_silent_is_aborted(
    large_report: None, postgres_url: str
) -> None:
    async with (
        Proxy(postgres_url) as proxy,
        create_stream_pool(proxy.url, application=APPLICATION, size=1) as pool,
    ):
        connections = ReadConnections(pool)
        reports = ReportReader(
            small_reads=connections, streams=connections, stall_timeout=timedelta(seconds=0.5)
        )
        stream = await reports.open_stream(DAY, Format.JSON)
        await wait_until(
            lambda: _is(stream.buffered_bytes > MAX_BUFFERED_BYTES), what="a full pipe"
        )
        proxy.stall_open()
        async with asyncio.timeout(10):
            with pytest.raises(TimeoutError):
                async for _ in stream.pieces():
                    pass
            await stream.close()
            # The only connection of the pool has been replaced.
            assert (await reports.get_edition(DAY)).revision == 1
        pool.terminate()


async def test_a_stream_is_unavailable_while_all_connections_are_in_use(
    large_report: None, reports: ReportReader
) -> None:
    open_streams = [await reports.open_stream(DAY, Format.JSON) for _ in range(2)]
    with pytest.raises(Unavailable, match="Too many reports are being read"):
        await reports.open_stream(DAY, Format.JSON)
    for stream in open_streams:
        await stream.close()
    assert (await reports.get_edition(DAY)).revision == 1
