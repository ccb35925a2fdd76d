"""Does every request get an answer that can be worked with, whatever happens?"""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api.errors import Problem
from daybook_api.main import build_app
from daybook_api.settings import ApiSettings
from tests.integration.api.conftest import MakeDay, serve
from tests.support.databases import fresh_database

AWAY = "postgresql://nobody@127.0.0.1:1/nothing"


def _app(url: str) -> FastAPI:
    return build_app(
        ApiSettings.model_validate({"database_url": url, "stream_timeout": timedelta(seconds=5)})
    )


async def test_an_unknown_path_says_where_to_look(api: httpx.AsyncClient) -> None:
    answer = await api.get("/reports")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_path")
    assert "/docs" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/report", "GET, HEAD"),
        ("DELETE", "/report/runs/", "GET, POST"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_another_method_is_told_which_there_are(
    api: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await api.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.headers["content-type"] == "application/problem+json"
    assert allowed in answer.json()["detail"]


async def test_every_answer_carries_the_request_id(api: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/nowhere", "/report?date="):
        given = await api.get(path, headers={"X-Request-ID": "order-17.a"})
        made = await api.get(path)
        evil = await api.get(path, headers={"X-Request-ID": "a b\tc" * 50})
        assert given.headers["x-request-id"] == "order-17.a"
        for answer in (made, evil):
            assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_a_bug_is_a_bare_500(postgres_url: str) -> None:
    app = _app(postgres_url)

    async def boom() -> None:
        raise RuntimeError("secret")

    app.add_api_route("/boom", boom)
    async with serve(app) as client:
        answer = await client.get("/boom")
    problem = Problem.model_validate(answer.json())
    assert (answer.status_code, problem.code) == (500, "internal_error")
    assert "secret" not in answer.text
    assert problem.request_id == answer.headers["x-request-id"]


async def test_while_the_database_is_away_only_what_needs_it_is_unavailable() -> None:
    async with serve(_app(AWAY)) as client:
        for path in (
            "/report?date=2026-03-01",
            "/report",
            "/report/days",
            f"/report/runs/{uuid4()}",
        ):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), path
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"] == "2"
        assert (await client.post("/report/runs", json={"date": "2026-03-01"})).status_code == 503
        assert (await client.head("/report?date=2026-03-01")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
        ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert ready.json()["dependencies"]["postgres"]["status"] == "down"
    assert "cannot be reached" in ready.json()["detail"]


async def test_a_database_that_does_not_answer_is_not_waited_for_without_end(
    postgres_url: str, engine: AsyncEngine
) -> None:
    hasty = ApiSettings.model_validate(
        {"database_url": postgres_url, "query_timeout": timedelta(seconds=0.2)}
    )
    async with serve(build_app(hasty)) as client:
        async with engine.begin() as connection:
            await connection.execute(text("LOCK TABLE report_runs"))
            answers = [
                await client.get("/report/runs"),
                await client.post("/report/runs", json={"date": "2026-03-01"}),
            ]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert (await client.get("/report/runs")).status_code == 200


async def test_after_a_restart_of_the_database_requests_go_on(
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
    # The first request may meet a connection whose end is not known yet.
    assert {(await api.get(path)).status_code for path in paths} <= {200, 503}
    assert [(await api.get(path)).status_code for path in paths] == [200] * 3


async def test_a_database_without_tables_is_not_ready(postgres_server_url: str) -> None:
    async with (
        fresh_database(postgres_server_url, name=f"daybook_empty_{uuid4().hex[:8]}") as url,
        serve(_app(url)) as client,
    ):
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert "daybook migrate" in answer.json()["detail"]


async def test_a_body_is_not_read_without_end(api: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 50_000_000:
            sent += 100_000
            yield b" " * 100_000

    answer = await api.post(
        "/report/runs", content=endless(), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert sent < 2_000_000


async def test_what_is_healthy_says_so(api: httpx.AsyncClient) -> None:
    ready = await api.get("/readyz")
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    assert (await api.head("/healthz")).status_code == 200
    assert ready.json()["dependencies"]["postgres"]["status"] == "up"
    assert (await api.get("/")).json()["report"] == "/report"


async def test_requests_are_counted_by_route_and_not_by_path(api: httpx.AsyncClient) -> None:
    for _ in range(3):
        await api.get(f"/report/runs/{uuid4()}")
    counted = (await api.get("/metrics")).text
    line = 'daybook_http_requests_total{method="GET",route="/report/runs/{run_id}",status="404"}'
    assert line in counted
    assert "daybook_http_request_seconds_bucket" in counted


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documentation_loads_nothing_from_elsewhere(
    api: httpx.AsyncClient, path: str
) -> None:
    page = await api.get(path)
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert page.status_code == 200
    assert "://" not in page.text.replace("http://www.w3.org", "")
    assert assets
    for asset in assets:
        assert (await api.get(asset)).status_code == 200, asset


async def test_the_openapi_document_tells_what_is_answered(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    report = document["paths"]["/report"]["get"]["responses"]
    assert {*report["200"]["content"]} == {
        "application/json",
        "application/x-ndjson",
        "text/csv",
    }
    assert report["200"]["content"]["application/json"]["schema"]["items"]["$ref"].endswith(
        "ReportRow"
    )
    schemas = document["components"]["schemas"]
    assert {"Problem", "ProblemError", "RunOut", "DayOut", "ReportRow"} <= schemas.keys()
    assert "HTTPValidationError" not in schemas
    for operations in document["paths"].values():
        for operation in operations.values():
            assert "application/problem+json" in operation["responses"]["default"]["content"]
    assert _references(document) <= {f"#/components/schemas/{name}" for name in schemas}


def _references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(_references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(_references(value) for value in node))
    return set()
