"""Fixtures of the integration tests of the API."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date, timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api.main import build_app
from daybook_api.settings import ApiSettings

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
    """Start `app` and yield a client for it."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://daybook",
        ) as client,
    ):
        yield client


@pytest.fixture(scope="session")
async def app(postgres_url: str) -> FastAPI:
    """Return the API on the test database."""
    return build_app(
        ApiSettings.model_validate(
            {"database_url": postgres_url, "stream_timeout": timedelta(seconds=5)}
        )
    )


@pytest.fixture(scope="session")
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Start the API and return a client for it."""
    async with serve(app) as client:
        yield client


@pytest.fixture
def api(running: httpx.AsyncClient, clean: None) -> httpx.AsyncClient:
    """Return a client for the API with an empty database."""
    return running


@pytest.fixture
def make_day(engine: AsyncEngine, clean: None) -> MakeDay:
    """Return a function that inserts the report of a day."""

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
