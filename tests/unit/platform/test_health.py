"""The health endpoints: liveness, readiness and metrics."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from daybook_domain.errors import Unavailable
from daybook_platform.health import Check, HealthServer


async def passes() -> None:
    pass


async def fails() -> None:
    raise Unavailable("not consuming")


async def breaks() -> None:
    raise OSError("cannot reach 10.0.0.1 with password hunter2")


async def hangs() -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def health(registry: CollectorRegistry | None = None, **checks: Check) -> AsyncIterator[str]:
    server = HealthServer(
        host="127.0.0.1",
        port=0,
        checks=checks,
        registry=registry or CollectorRegistry(),
        timeout=0.05,
    )
    async with server:
        yield f"http://127.0.0.1:{server.port}"


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(url)


async def test_liveness_does_not_depend_on_dependencies() -> None:
    async with health(database=fails) as url:
        response = await get(f"{url}/healthz")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_a_service_is_ready_when_every_dependency_responds() -> None:
    async with health(database=passes, broker=passes) as url:
        response = await get(f"{url}/readyz?verbose=1")

    assert response.status_code == 200
    assert response.json()["checks"] == {"database": "ok", "broker": "ok"}


@pytest.mark.parametrize(
    ("check", "result"),
    [(fails, "not consuming"), (hangs, "no response within 0.05 s"), (breaks, "OSError")],
)
async def test_a_failing_dependency_is_named_and_the_service_is_not_ready(
    check: Callable[[], Awaitable[None]], result: str
) -> None:
    async with health(database=passes, broker=check) as url:
        response = await get(f"{url}/readyz")

    assert response.status_code == 503
    assert response.json() == {
        "status": "not ready",
        "checks": {"database": "ok", "broker": result},
    }


async def test_metrics_are_those_of_the_given_registry() -> None:
    registry = CollectorRegistry()
    Counter("daybook_things", "Things.", registry=registry).inc(3)

    async with health(registry) as url:
        response = await get(f"{url}/metrics")

    assert "daybook_things_total 3.0" in response.text


async def test_head_returns_only_headers_and_other_methods_are_refused() -> None:
    async with health() as url, httpx.AsyncClient() as client:
        head = await client.head(f"{url}/healthz")
        post = await client.post(f"{url}/healthz")
        missing = await client.get(f"{url}/nowhere")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(json.dumps({"status": "ok"})))
    assert (post.status_code, missing.status_code) == (405, 404)


async def test_a_client_that_sends_garbage_does_not_affect_others() -> None:
    async with health() as url:
        for garbage in (b"\x00\xff" * 20_000, b"\r\n\r\n", b"GET"):
            reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
            writer.write(garbage)
            writer.write_eof()
            await asyncio.wait_for(_drained(reader), timeout=2)
            writer.close()

        assert (await get(f"{url}/healthz")).status_code == 200


async def _drained(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        await reader.read()


async def test_a_port_in_use_exits_with_the_name_of_its_setting() -> None:
    async with health() as url:
        second = HealthServer(
            host="127.0.0.1",
            port=httpx.URL(url).port or 0,
            checks={},
            registry=CollectorRegistry(),
        )
        with pytest.raises(SystemExit) as caught:
            await second.start()

    assert caught.value.code == 2
