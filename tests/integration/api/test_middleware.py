"""Integration tests of request ids, the body limit and request metrics."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import httpx
from fastapi import FastAPI

from daybook_api.main import build_app
from daybook_api.settings import ApiSettings


def _app(url: str) -> FastAPI:
    return build_app(
        ApiSettings.model_validate({"database_url": url, "stream_timeout": timedelta(seconds=5)})
    )


async def test_every_response_has_the_request_id(api: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/nowhere", "/report?date="):
        accepted = await api.get(path, headers={"X-Request-ID": "order-17.a"})
        generated = await api.get(path)
        malformed = await api.get(path, headers={"X-Request-ID": "a b\tc" * 50})
        assert accepted.headers["x-request-id"] == "order-17.a"
        for response in (generated, malformed):
            assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


async def test_a_too_large_body_is_rejected_before_it_is_read_completely(
    api: httpx.AsyncClient,
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 50_000_000:
            sent += 100_000
            yield b" " * 100_000

    response = await api.post(
        "/report/runs", content=endless(), headers={"Content-Type": "application/json"}
    )
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert sent < 2_000_000


async def test_requests_are_counted_by_route_and_not_by_path(api: httpx.AsyncClient) -> None:
    for _ in range(3):
        await api.get(f"/report/runs/{uuid4()}")
    counted = (await api.get("/metrics")).text
    line = 'daybook_http_requests_total{method="GET",route="/report/runs/{run_id}",status="404"}'
    assert line in counted
    assert "daybook_http_request_seconds_bucket" in counted
