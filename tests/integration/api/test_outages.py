"""Integration tests of requests while the database is unavailable, slow or restarting."""

from datetime import timedelta
from uuid import uuid4

import httpx
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api.main import build_app
from daybook_api.settings import ApiSettings
from tests.integration.api.conftest import MakeDay, serve


def _app(url: str) -> FastAPI:
    return build_app(
        ApiSettings.model_validate({"database_url": url, "stream_timeout": timedelta(seconds=5)})
    )


UNREACHABLE = "postgresql://nobody@127.0.0.1:1/nothing"


async def test_only_requests_that_need_the_database_fail_while_it_is_unavailable() -> None:
    async with serve(_app(UNREACHABLE)) as client:
        for path in (
            "/report?date=2026-03-01",
            "/report",
            "/report/days",
            f"/report/runs/{uuid4()}",
        ):
            response = await client.get(path)
            assert (response.status_code, response.json()["code"]) == (503, "unavailable"), path
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["retry-after"] == "2"
        assert (await client.post("/report/runs", json={"date": "2026-03-01"})).status_code == 503
        assert (await client.head("/report?date=2026-03-01")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
        ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert ready.json()["dependencies"]["postgres"]["status"] == "down"
    assert "cannot be reached" in ready.json()["detail"]


async def test_a_request_fails_when_the_database_does_not_respond_in_time(
    postgres_url: str, engine: AsyncEngine
) -> None:
    impatient = ApiSettings.model_validate(
        {"database_url": postgres_url, "query_timeout": timedelta(seconds=0.2)}
    )
    async with serve(build_app(impatient)) as client:
        async with engine.begin() as connection:
            await connection.execute(text("LOCK TABLE report_runs"))
            responses = [
                await client.get("/report/runs"),
                await client.post("/report/runs", json={"date": "2026-03-01"}),
            ]
        assert [response.status_code for response in responses] == [503, 503]
        assert (await client.get("/report/runs")).status_code == 200


async def test_requests_succeed_after_a_restart_of_the_database(
    api: httpx.AsyncClient, make_day: MakeDay, engine: AsyncEngine
) -> None:
    await make_day("2026-03-01")
    paths = ("/report?date=2026-03-01", "/report/runs", "/readyz")
    assert [(await api.get(path)).status_code for path in paths] == [200] * 3
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'daybook-api%'"
            )
        )
    # The first request may use a connection that is closed without the pool knowing.
    assert {(await api.get(path)).status_code for path in paths} <= {200, 503}
    assert [(await api.get(path)).status_code for path in paths] == [200] * 3
