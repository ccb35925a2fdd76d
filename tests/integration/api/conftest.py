"""What do the tests of the API share?"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api.main import build_app
from daybook_api.settings import ApiSettings
from tests.support.processes import Service
from tests.support.waiting import until

MakeDay = Callable[..., Awaitable[None]]

INSERT_ROWS = """
INSERT INTO reports (report_at, order_id, count_product, created_at)
SELECT CAST(:day AS date), n, n % 5, timestamptz '2026-03-02 00:00:01.5+00'
FROM generate_series(CAST(:rows AS bigint), 1, -1) AS n
"""
INSERT_DAY = """
INSERT INTO report_days
    (report_date, revision, orders_count, products_count, digest, data_through, built_at,
     sealed_at, announced_revision, last_run_id)
SELECT CAST(:day AS date), :revision, count(*), coalesce(sum(count_product), 0), 'd1ge57', now(),
    now(), CASE WHEN CAST(:sealed AS boolean) THEN now() END, 0, gen_random_uuid()
FROM reports WHERE report_at = CAST(:day AS date)
"""


@asynccontextmanager
async def serve(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Start `app` and yield a client of it."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://daybook",
        ) as client,
    ):
        yield client


@asynccontextmanager
async def api_process(
    url: str, folder: Path, **more: str
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """Start the API as a process and yield it, and a client of it."""
    environment = {"DAYBOOK_DATABASE_URL": url, "DAYBOOK_API_PORT": "0"} | more
    with Service(["daybook-api"], environment=environment, log=folder / "api.log") as service:

        async def address() -> str | None:
            assert service.running, service.said()
            found = re.search(r'http://127[^"]*', service.said())
            return found[0] if found and '"ready"' in service.said() else None

        where = await until(address, what="the start of the API")
        async with httpx.AsyncClient(base_url=str(where), timeout=10) as client:
            yield service, client


@pytest.fixture(scope="session")
async def app(postgres_url: str) -> FastAPI:
    """Return the API, wired to the tests' database."""
    return build_app(
        ApiSettings.model_validate(
            {"database_url": postgres_url, "stream_timeout": timedelta(seconds=5)}
        )
    )


@pytest.fixture(scope="session")
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the API."""
    async with serve(app) as client:
        yield client


@pytest.fixture
def api(running: httpx.AsyncClient, clean: None) -> httpx.AsyncClient:
    """Return a client of the API, whose database is empty."""
    return running


@pytest.fixture
def make_day(engine: AsyncEngine, clean: None) -> MakeDay:
    """Return a function that writes the report of a day."""

    async def make(day: str, *, rows: int = 3, revision: int = 1, sealed: bool = True) -> None:
        values = {
            "day": date.fromisoformat(day),
            "rows": rows,
            "revision": revision,
            "sealed": sealed,
        }
        async with engine.begin() as connection:
            for statement in (
                "DELETE FROM reports WHERE report_at = :day",
                "DELETE FROM report_days WHERE report_date = :day",
                INSERT_ROWS,
                INSERT_DAY,
            ):
                await connection.execute(text(statement), values)

    return make
