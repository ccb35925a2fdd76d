"""Requests per second for a single product, with and without the cache."""

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from daybook_platform.postgres import migrate
from daybook_platform.postgres.engine import create_engine
from tests.benchmarks import http_client
from tests.benchmarks.http_client import seconds_for
from tests.support.bench import Way, interleaved, ratio, setting, table
from tests.support.databases import fresh_database
from tests.support.processes import Service
from tests.support.shop import open_shop
from tests.support.waiting import until

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
REQUESTS = 800
NAMES = {
    "off": "GET /products/1, DAYBOOK_CACHE=off",
    "on": "GET /products/1, DAYBOOK_CACHE=on",
    "healthz": "/healthz of the API",
    "hello": "FastAPI hello world",
}


@pytest.fixture(scope="module")
async def targets(
    postgres_server_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, tuple[int, str]]]:
    """Yield port and path of each measured endpoint; each service is one process."""
    folder = tmp_path_factory.mktemp("cache")
    async with fresh_database(postgres_server_url, name=f"daybook_cache_{os.getpid()}") as url:
        await migrate.upgrade(url)
        engine = create_engine(url, application="bench")
        await open_shop(engine)
        await engine.dispose()
        ports = {name: http_client.free_port() for name in ("off", "on", "hello")}
        with ExitStack() as stack:
            for cache in ("off", "on"):
                environment = {
                    "DAYBOOK_DATABASE_URL": url,
                    "DAYBOOK_REDIS_URL": redis_url,
                    "DAYBOOK_CACHE": cache,
                    "DAYBOOK_CACHE_TIMEOUT": "10",
                    "DAYBOOK_API_PORT": str(ports[cache]),
                }
                service = Service(["daybook-api"], environment=environment, log=folder / cache)
                stack.enter_context(service)
            stack.enter_context(
                http_client.reference(url, port=ports["hello"], log=folder / "hello")
            )
            for port in ports.values():
                await until(partial(http_client.accepts_connections, port), what=f"port {port}")
            yield {
                "off": (ports["off"], "/products/1"),
                "on": (ports["on"], "/products/1"),
                "healthz": (ports["off"], "/healthz"),
                "hello": (ports["hello"], "/hello"),
            }


@pytest.mark.parametrize("connections", [1, 8])
async def test_a_single_product_is_requested_with_and_without_the_cache(
    targets: dict[str, tuple[int, str]], postgres_server_url: str, connections: int
) -> None:
    def way(name: str) -> Way:
        port, path = targets[name]

        async def one_request() -> float:
            async with http_client.connections(port, path, count=connections) as opened:
                return await seconds_for(opened, requests=REQUESTS) / REQUESTS

        return one_request

    taken = await interleaved({name: way(name) for name in targets}, rounds=5)
    rows = [
        [
            text,
            f"{1 / taken.median(name):,.0f}/s",
            ratio(taken.ratio("off", to=name)),
            ratio(taken.ratio("hello", to=name)),
        ]
        for name, text in NAMES.items()
    ]
    engine = create_engine(postgres_server_url, application="bench")
    title = f"A single product, {connections} connections; {await setting(engine)}"
    await engine.dispose()
    print(table(title, ["", "requests", "x off", "x hello"], rows))
