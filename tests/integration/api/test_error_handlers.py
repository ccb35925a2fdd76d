"""Integration tests of error responses."""

from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI

from daybook_api.main import build_app
from daybook_api.problems import Problem
from daybook_api.settings import ApiSettings
from tests.integration.api.conftest import serve


def _app(url: str) -> FastAPI:
    return build_app(
        ApiSettings.model_validate({"database_url": url, "stream_timeout": timedelta(seconds=5)})
    )


async def test_an_unknown_path_is_a_problem_that_names_the_documentation(
    api: httpx.AsyncClient,
) -> None:
    response = await api.get("/reports")
    assert (response.status_code, response.json()["code"]) == (404, "no_such_path")
    assert "/docs" in response.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/report", "GET, HEAD"),
        ("DELETE", "/report/runs/", "GET, HEAD, POST"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_an_unsupported_method_is_rejected_with_the_supported_ones(
    api: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await api.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.headers["content-type"] == "application/problem+json"
    assert allowed in response.json()["detail"]


async def test_an_unhandled_exception_is_a_500_without_details(postgres_url: str) -> None:
    app = _app(postgres_url)

    async def boom() -> None:
        raise RuntimeError("secret")

    app.add_api_route("/boom", boom)
    async with serve(app) as client:
        response = await client.get("/boom")
    problem = Problem.model_validate(response.json())
    assert (response.status_code, problem.code) == (500, "internal_error")
    assert "secret" not in response.text
    assert problem.request_id == response.headers["x-request-id"]
