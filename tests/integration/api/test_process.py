"""Tests of the API process: slow clients, signals, settings and logs."""

import asyncio
import json
import signal
import socket
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from daybook_embedded.ports import free_port
from tests.integration.api.conftest import MakeDay
from tests.integration.api.processes import api_process
from tests.support.processes import Service, wait_for_log_entry
from tests.support.waiting import wait_until

DAY = "2026-03-01"
MANY = 300_000


def _slow_reader(client: httpx.AsyncClient) -> socket.socket:
    """Return a connection that has requested the report and reads nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((client.base_url.host, client.base_url.port or 0))
    connection.sendall(f"GET /report?date={DAY} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


async def test_slow_clients_use_bounded_memory_and_do_not_block_others(
    postgres_url: str, make_day: MakeDay, tmp_path: Path
) -> None:
    await make_day(DAY, rows=MANY)
    async with api_process(postgres_url, tmp_path) as (service, client):
        process = psutil.Process(service.pid)
        await client.get(f"/report?date={DAY}")
        before = process.memory_info().rss
        readers = [_slow_reader(client) for _ in range(4)]
        for _ in range(20):
            assert (await client.get("/report/runs")).status_code == 200
            assert (await client.head(f"/report?date={DAY}")).status_code == 200
        whole = await client.get(f"/report?date={DAY}")
        grown = process.memory_info().rss - before
        for reader in readers:
            reader.close()
    assert len(whole.content) > 30_000_000
    assert len(whole.json()) == MANY
    # Each client may use one pipe; the complete responses would be 150 MB.
    assert grown < 10_000_000


async def test_a_stalled_client_is_disconnected(
    postgres_url: str, make_day: MakeDay, tmp_path: Path
) -> None:
    await make_day(DAY, rows=MANY)
    async with api_process(postgres_url, tmp_path, DAYBOOK_STREAM_TIMEOUT="0.5") as (
        service,
        client,
    ):
        process = psutil.Process(service.pid)
        with closing(_slow_reader(client)):

            async def stream_aborted() -> bool:
                return "report stream aborted" in service.read_log()

            async def connection_closed() -> bool:
                return not process.net_connections(kind="tcp4") or not any(
                    item.status == psutil.CONN_ESTABLISHED
                    and item.laddr.port == client.base_url.port
                    for item in process.net_connections(kind="tcp4")
                )

            await wait_until(stream_aborted, what="the end of the stream")
            await wait_until(connection_closed, what="the end of the connection")
            assert (await client.get("/healthz")).status_code == 200


async def test_sigterm_lets_an_open_stream_complete(
    postgres_url: str, make_day: MakeDay, tmp_path: Path
) -> None:
    await make_day(DAY, rows=MANY)
    async with (
        api_process(postgres_url, tmp_path) as (service, client),
        client.stream("GET", f"/report?date={DAY}&format=ndjson") as response,
    ):
        pieces = response.aiter_bytes()
        rows = (await anext(pieces)).count(b"\n")
        service.send(signal.SIGTERM)
        async for piece in pieces:
            rows += piece.count(b"\n")
        code = await asyncio.to_thread(service.wait)
    assert (rows, code) == (MANY, 0)


async def test_a_client_that_connects_during_the_start_is_served_afterwards(
    postgres_url: str, tmp_path: Path
) -> None:
    port = free_port()
    with closing(socket.create_server(("127.0.0.1", 0))) as unresponsive:
        # The start waits for a Redis that does not respond.
        environment = {
            "DAYBOOK_DATABASE_URL": postgres_url,
            "DAYBOOK_REDIS_URL": f"redis://127.0.0.1:{unresponsive.getsockname()[1]}/0",
            "DAYBOOK_API_PORT": str(port),
        }
        with Service(["daybook-api"], environment=environment, log=tmp_path / "api.log") as service:
            await wait_for_log_entry(service, "starting")
            async with httpx.AsyncClient(timeout=10) as client:
                response = await client.get(f"http://127.0.0.1:{port}/healthz")
    assert response.status_code == 200


async def test_sigint_stops_the_process_cleanly(postgres_url: str, tmp_path: Path) -> None:
    async with api_process(postgres_url, tmp_path) as (service, _):
        service.send(signal.SIGINT)
        assert await asyncio.to_thread(service.wait) == 0
    assert "Traceback" not in service.read_log()


def _run(command: list[str], environment: Mapping[str, str], folder: Path) -> tuple[int, str]:
    with Service(command, environment=environment, log=folder / "api.log") as service:
        return service.wait(), service.read_log()


def test_a_port_in_use_is_reported_by_setting(postgres_url: str, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = str(other.getsockname()[1])
        environment = {"DAYBOOK_DATABASE_URL": postgres_url, "DAYBOOK_API_PORT": port}
        code, output = _run(["daybook-api"], environment, tmp_path)
    assert code == 2
    assert f"DAYBOOK_API_PORT: cannot listen on 127.0.0.1:{port}" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "command", [["daybook-api"], ["uvicorn", "daybook_api.main:create_app", "--factory"]]
)
def test_invalid_settings_are_reported_by_name(command: list[str], tmp_path: Path) -> None:
    code, output = _run(command, {"DAYBOOK_TIMEZONE": "Mars"}, tmp_path)
    assert code == 2
    assert "DAYBOOK_DATABASE_URL: is not set" in output
    assert "DAYBOOK_TIMEZONE: expected an IANA time zone" in output
    assert "Traceback" not in output


async def test_the_log_is_json_with_the_request_id(postgres_url: str, tmp_path: Path) -> None:
    async with api_process(postgres_url, tmp_path) as (service, client):

        async def logged() -> list[dict[str, Any]]:
            lines = [json.loads(line) for line in service.read_log().splitlines()]
            return [line for line in lines if line["message"] == "request"]

        await client.get("/report?date=", headers={"X-Request-ID": "mine"})
        # The line is logged after the response, so the client may be ahead of it.
        (line,) = await wait_until(logged, what="a line about the request")
    assert (line["request_id"], line["status"], line["path"]) == ("mine", 422, "/report")
