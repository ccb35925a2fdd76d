"""Does a report flow without growing, without holding anything, and without mixing?"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date, timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api.reports.responses import StreamedReport
from daybook_api.reports.streams import MAX_BUFFERED_BYTES, ReportReader
from daybook_domain.errors import Unavailable
from daybook_domain.reports.rendering import SMALL_ROWS, Format
from daybook_platform.postgres.engine import create_stream_pool
from tests.integration.api.conftest import MakeDay
from tests.support.waiting import until

DAY = date(2026, 3, 1)
MANY = 50_000
READERS = "test of streams"


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with create_stream_pool(postgres_url, application=READERS, size=2) as pool:
        yield pool
        pool.terminate()


@pytest.fixture
def reports(pool: asyncpg.Pool) -> ReportReader:
    return ReportReader(pool, patience=timedelta(minutes=1), free_within=timedelta(seconds=0.2))


@pytest.fixture
async def many(make_day: MakeDay) -> None:
    await make_day(DAY.isoformat(), rows=MANY)


@pytest.fixture
def no_reader_left(engine: AsyncEngine) -> Callable[[], Awaitable[bool]]:
    async def none_left() -> bool:
        async with engine.connect() as connection:
            found = await connection.execute(
                text(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database()"
                    " AND application_name = :name AND state <> 'idle'"
                ),
                {"name": READERS},
            )
        return not found.scalar_one()

    return none_left


class Reader:
    """The other side of an ASGI response: takes messages when it is let."""

    def __init__(self) -> None:
        self.taking = asyncio.Event()
        self.gone = asyncio.Event()
        self.body = b""
        self.complete = False

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            return
        await self.taking.wait()
        self.body += message["body"]
        self.complete = not message.get("more_body", False)


async def test_a_long_day_arrives_whole(many: None, reports: ReportReader) -> None:
    stream = await reports.open(DAY, Format.JSON)
    rows = json.loads(b"".join([piece async for piece in stream.pieces()]))
    await stream.close()
    assert [row["order_id"] for row in rows] == list(range(1, MANY + 1))


async def test_a_stream_shows_the_day_before_a_run_though_the_run_commits_meanwhile(
    many: None, reports: ReportReader, make_day: MakeDay
) -> None:
    stream = await reports.open(DAY, Format.NDJSON)
    pieces = stream.pieces()
    body = await anext(pieces)
    await make_day(DAY.isoformat(), rows=10, revision=2)
    body += b"".join([piece async for piece in pieces])
    await stream.close()
    assert (stream.edition.revision, body.count(b"\n")) == (1, MANY)
    assert (await reports.edition(DAY)).revision == 2


async def test_who_does_not_read_lets_nothing_grow(many: None, reports: ReportReader) -> None:
    stream = await reports.open(DAY, Format.JSON)
    # The COPY goes on until the pipe is full; other work shows that the loop is not held up.
    await until(lambda: _is(stream.held_bytes > MAX_BUFFERED_BYTES), what="a full pipe")
    for _ in range(20):
        await reports.edition(DAY)
    assert stream.held_bytes < MAX_BUFFERED_BYTES + 512 * 1024
    await stream.close()


async def _is(value: bool) -> bool:  # noqa: FBT001 # it is what it gives back
    return value


async def test_a_day_that_fits_into_the_pipe_holds_no_connection_while_it_is_sent(
    make_day: MakeDay, reports: ReportReader
) -> None:
    await make_day(DAY.isoformat(), rows=1500)
    # There are two connections.
    streams = [await reports.open(DAY, Format.JSON) for _ in range(10)]
    for stream in streams:
        assert len(json.loads(b"".join([piece async for piece in stream.pieces()]))) == 1500
        await stream.close()


@pytest.mark.parametrize("rows", [0, 1, 2, SMALL_ROWS])
@pytest.mark.parametrize("form", [*Format])
async def test_at_once_and_streamed_the_bytes_are_the_same(
    make_day: MakeDay, reports: ReportReader, rows: int, form: Format
) -> None:
    await make_day(DAY.isoformat(), rows=rows)
    small = await reports.small(DAY, form)
    stream = await reports.open(DAY, form)
    assert small is not None
    assert small.edition == stream.edition
    assert small.body == b"".join([piece async for piece in stream.pieces()])
    await stream.close()


async def test_a_long_day_is_not_had_at_once(make_day: MakeDay, reports: ReportReader) -> None:
    await make_day(DAY.isoformat(), rows=SMALL_ROWS + 1)
    assert await reports.small(DAY, Format.JSON) is None


async def test_when_the_client_goes_the_copy_ends(
    many: None,
    reports: ReportReader,
    pool: asyncpg.Pool,
    no_reader_left: Callable[[], Awaitable[bool]],
) -> None:
    reader = Reader()
    response = StreamedReport(await reports.open(DAY, Format.JSON), Format.JSON)
    answering = asyncio.create_task(response({"type": "http"}, reader.receive, reader.send))
    reader.gone.set()
    async with asyncio.timeout(10):
        await answering
    assert not reader.complete
    await until(no_reader_left, what="the end of the COPY")
    assert (await reports.edition(DAY)).revision == 1


async def test_a_reader_who_takes_nothing_is_cut_off(
    many: None, pool: asyncpg.Pool, no_reader_left: Callable[[], Awaitable[bool]]
) -> None:
    hasty = ReportReader(pool, patience=timedelta(seconds=0.2))
    reader = Reader()
    response = StreamedReport(await hasty.open(DAY, Format.JSON), Format.JSON)
    async with asyncio.timeout(10):
        await response({"type": "http"}, reader.receive, reader.send)
    assert not reader.complete
    await until(no_reader_left, what="the end of the COPY")


async def test_a_stream_that_loses_its_database_is_not_completed(
    many: None, reports: ReportReader, engine: AsyncEngine
) -> None:
    reader = Reader()
    response = StreamedReport(await reports.open(DAY, Format.JSON), Format.JSON)
    answering = asyncio.create_task(response({"type": "http"}, reader.receive, reader.send))
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = :name"
            ),
            {"name": READERS},
        )
    reader.taking.set()
    async with asyncio.timeout(5):
        await answering
    assert not reader.complete
    assert len([piece async for piece in (await reports.open(DAY, Format.CSV)).pieces()]) > 1


async def test_when_all_streams_are_taken_another_is_refused_for_now(
    many: None, reports: ReportReader
) -> None:
    taken = [await reports.open(DAY, Format.JSON) for _ in range(2)]
    with pytest.raises(Unavailable, match="Too many reports are being read"):
        await reports.open(DAY, Format.JSON)
    for stream in taken:
        await stream.close()
    assert (await reports.edition(DAY)).revision == 1
