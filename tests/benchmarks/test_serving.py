"""Speed and memory use of serving a report.

`DAYBOOK_BENCH_LARGE=1` also serves the million rows through the ORM, which takes half a minute and
3 GB per request.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import asyncpg
import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api.etags import report_etag
from daybook_domain.reports import rendering
from daybook_domain.reports.rendering import Format
from daybook_platform.postgres.engine import create_engine, create_stream_pool
from tests.benchmarks import http_client
from tests.benchmarks.http_client import seconds_for
from tests.benchmarks.measurement import (
    Operation,
    describe_environment,
    format_milliseconds,
    format_ratio,
    format_table,
    measure_seconds,
    run_interleaved,
)
from tests.support.postgres import migrated_database
from tests.support.processes import Service
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]

LARGE = os.environ.get("DAYBOOK_BENCH_LARGE") == "1"
SMALL, MIDDLE, BIG = date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)
ROWS = {SMALL: 100, MIDDLE: 100_000, BIG: 1_000_000}
CONNECTIONS = 8

FILL = (
    """
    INSERT INTO reports (report_at, order_id, count_product)
    SELECT CAST(:day AS date), n, n % 9 FROM generate_series(1, CAST(:rows AS int)) AS n
    """,
    """
    INSERT INTO report_days (report_date, revision, orders_count, products_count, digest,
        data_through, built_at, sealed_at, announced_revision, last_run_id)
    VALUES (:day, 1, :rows, 0, 'bench', now(), now(), now(), 1, gen_random_uuid())
    """,
)


@dataclass(frozen=True)
class ServingBench:
    """A database with three days, the API that serves it, and the reference application."""

    url: str
    engine: AsyncEngine
    api: Service
    api_port: int
    reference_port: int

    def rss_megabytes(self) -> float:
        """Return the resident memory of the API in megabytes."""
        return float(psutil.Process(self.api.pid).memory_info().rss) / 1e6


@pytest.fixture(scope="module")
async def served(
    postgres_server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServingBench]:
    folder = tmp_path_factory.mktemp("serving")
    async with migrated_database(postgres_server_url, name=f"daybook_serving_{os.getpid()}") as url:
        engine = create_engine(url, application="bench")
        await _fill(engine)
        async with _services(url, folder) as (api, api_port, reference_port):
            yield ServingBench(url, engine, api, api_port, reference_port)
        await engine.dispose()


async def _fill(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        for day, rows in ROWS.items():
            for statement in FILL:
                await connection.execute(text(statement), {"day": day, "rows": rows})
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE reports"))


@asynccontextmanager
async def _services(url: str, folder: Path) -> AsyncIterator[tuple[Service, int, int]]:
    ports = [http_client.free_port(), http_client.free_port()]
    environment = {"DAYBOOK_DATABASE_URL": url, "DAYBOOK_API_PORT": str(ports[0])}
    with ExitStack() as stack:
        api = stack.enter_context(
            Service(["daybook-api"], environment=environment, log=folder / "api.log")
        )
        stack.enter_context(http_client.reference(url, port=ports[1], log=folder / "o.log"))
        for port in ports:
            await wait_until(partial(http_client.accepts_connections, port), what=f"port {port}")
        yield api, ports[0], ports[1]


async def test_a_small_day_is_compared_with_the_orm_and_hello_world(served: ServingBench) -> None:
    path = f"/report?date={SMALL}"
    async with create_stream_pool(served.url, application="bench", size=1) as pool:
        line = await pool.fetchval(rendering.EDITION_QUERY, SMALL)
        pool.terminate()
    etag = report_etag(rendering.parse_edition(SMALL, line), Format.JSON)
    targets = {
        "hello": (served.reference_port, "/hello", {}, 1600),
        "naive": (served.reference_port, path, {}, 160),
        "daybook": (served.api_port, path, {}, 1600),
        "304": (served.api_port, path, {"If_None_Match": etag}, 1600),
        "healthz": (served.api_port, "/healthz", {}, 1600),
    }

    def way(name: str) -> Operation:
        port, path, headers, requests = targets[name]

        async def one_request() -> float:
            # New connections: the server closes idle ones.
            async with http_client.connections(
                port, path, count=CONNECTIONS, **headers
            ) as connections:
                return await seconds_for(connections, requests=requests) / requests

        return one_request

    taken = await run_interleaved({name: way(name) for name in targets}, rounds=7)
    names = {
        "naive": "100 rows, naive: ORM and Pydantic",
        "daybook": "100 rows",
        "304": "100 rows, not modified: 304",
        "healthz": "/healthz of the API",
        "hello": "FastAPI hello world",
    }
    rows = [
        [
            text_,
            f"{1 / taken.median(name):,.0f}/s",
            format_ratio(taken.ratio("naive", to=name)),
            format_ratio(taken.ratio("hello", to=name)),
        ]
        for name, text_ in names.items()
    ]
    environment = await describe_environment(served.engine)
    title = f"Serving a small day, {CONNECTIONS} connections; {environment}"
    print(format_table(title, ["", "requests", "x naive", "x hello"], rows))


async def test_a_streamed_long_day_is_compared_with_copy(served: ServingBench) -> None:
    firsts: dict[Format, list[float]] = {format: [] for format in Format}

    def stream(format: Format) -> Operation:
        async def way() -> float:
            first, whole, _ = await asyncio.to_thread(
                http_client.download, served.api_port, f"/report?date={BIG}&format={format}"
            )
            firsts[format].append(first)
            return whole

        return way

    async with create_stream_pool(served.url, application="bench", size=1) as pool:

        def copy(format: Format) -> Operation:
            async def way() -> float:
                return await measure_seconds(_copy_and_discard(pool, format))

            return way

        await stream(Format.CSV)()
        before = served.rss_megabytes()
        ways: dict[str, Operation] = {}
        for format in Format:
            ways |= {f"stream {format}": stream(format), f"copy {format}": copy(format)}
        taken = await run_interleaved(ways, rounds=5)
        grown = served.rss_megabytes() - before
        pool.terminate()
    naive = await _naive(served, BIG if LARGE else MIDDLE)
    scale = 1 if LARGE else ROWS[BIG] / ROWS[MIDDLE]
    rows = [
        [
            format.media_type,
            format_milliseconds(sorted(firsts[format])[len(firsts[format]) // 2]),
            format_milliseconds(taken.median(f"stream {format}")),
            format_ratio(taken.ratio(f"stream {format}", to=f"copy {format}")),
            format_ratio(naive * scale / taken.median(f"stream {format}")),
        ]
        for format in Format
    ]
    note = "" if LARGE else " (measured with 100,000, times 10)"
    title = f"Streaming 1,000,000 rows; naive {naive * scale:.1f} s{note}; api {grown:+.1f} MB"
    print(format_table(title, ["", "first byte", "whole", "x COPY", "x naive"], rows))


async def _copy_and_discard(pool: asyncpg.Pool, format: Format) -> None:
    async def discard(_: bytes) -> None:
        pass

    async with pool.acquire() as connection:
        await connection.copy_from_query(rendering.copy_query(BIG, format), output=discard)


async def _naive(served: ServingBench, day: date) -> float:
    path = f"/report?date={day}"
    return (await asyncio.to_thread(http_client.download, served.reference_port, path))[1]


async def test_memory_is_measured_with_slow_readers(served: ServingBench) -> None:
    before = served.rss_megabytes()
    readers = [http_client.slow_reader(served.api_port, f"/report?date={BIG}") for _ in range(12)]
    async with http_client.connections(
        served.api_port, f"/report?date={SMALL}", count=CONNECTIONS
    ) as connections:
        quick = await seconds_for(connections, requests=800) / 800
    grown = served.rss_megabytes() - before
    for reader in readers:
        reader.close()
    sys.stdout.write(
        f"\n12 readers of 1,000,000 rows that read nothing: api {grown:+.1f} MB"
        f" ({grown / 12:.2f} each); a small day next to them"
        f" {format_milliseconds(quick)} a request\n"
    )
