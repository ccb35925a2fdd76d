"""Integration tests of /healthz and /readyz."""

from datetime import timedelta
from uuid import uuid4

import httpx
from fastapi import FastAPI

from daybook_api.main import build_app
from daybook_api.settings import ApiSettings
from tests.integration.api.conftest import serve
from tests.support.postgres import temporary_database


def _app(url: str) -> FastAPI:
    return build_app(
        ApiSettings.model_validate({"database_url": url, "stream_timeout": timedelta(seconds=5)})
    )


async def test_a_database_without_tables_is_not_ready(postgres_server_url: str) -> None:
    async with (
        temporary_database(postgres_server_url, name=f"daybook_empty_{uuid4().hex[:8]}") as url,
        serve(_app(url)) as client,
    ):
        response = await client.get("/readyz")
    assert response.status_code == 503
    assert "daybook migrate" in response.json()["detail"]


async def test_a_healthy_process_is_alive_and_ready(api: httpx.AsyncClient) -> None:
    ready = await api.get("/readyz")
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    assert (await api.head("/healthz")).status_code == 200
    assert ready.json()["dependencies"]["postgres"]["status"] == "up"
    assert (await api.get("/")).json()["report"] == "/report"
