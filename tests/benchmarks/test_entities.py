"""Requests per second for single users and products, against FastAPI's hello world."""

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial

import pytest

from daybook_platform.postgres.engine import create_engine
from tests.benchmarks import http_client
from tests.benchmarks.http_client import seconds_for
from tests.benchmarks.measurement import (
    Operation,
    describe_environment,
    format_ratio,
    format_table,
    run_interleaved,
)
from tests.support.factories.shop import reset_shop
from tests.support.postgres import migrated_database
from tests.support.processes import Service
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]

REQUESTS = 800
PATHS = {
    "GET /products/1": ("api", "/products/1"),
    "GET /users/1": ("api", "/users/1"),
    "GET /healthz": ("api", "/healthz"),
    "FastAPI hello world": ("hello", "/hello"),
}


@pytest.fixture(scope="module")
async def ports(
    postgres_server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, int]]:
    """Return the ports of the API and of the hello world, one process with one worker each."""
    folder = tmp_path_factory.mktemp("entities")
    async with migrated_database(
        postgres_server_url, name=f"daybook_entities_{os.getpid()}"
    ) as url:
        engine = create_engine(url, application="bench")
        await reset_shop(engine)
        await engine.dispose()
        ports = {name: http_client.free_port() for name in ("api", "hello")}
        with ExitStack() as stack:
            environment = {"DAYBOOK_DATABASE_URL": url, "DAYBOOK_API_PORT": str(ports["api"])}
            api = Service(["daybook-api"], environment=environment, log=folder / "api")
            stack.enter_context(api)
            stack.enter_context(
                http_client.reference(url, port=ports["hello"], log=folder / "hello")
            )
            for port in ports.values():
                await wait_until(
                    partial(http_client.accepts_connections, port), what=f"port {port}"
                )
            yield ports


@pytest.mark.parametrize("connections", [1, 8])
async def test_single_entities_are_compared_with_hello_world(
    ports: dict[str, int], postgres_server_url: str, connections: int
) -> None:
    def way(name: str) -> Operation:
        process, path = PATHS[name]

        async def one_request() -> float:
            async with http_client.connections(ports[process], path, count=connections) as opened:
                return await seconds_for(opened, requests=REQUESTS) / REQUESTS

        return one_request

    taken = await run_interleaved({name: way(name) for name in PATHS}, rounds=5)
    rows = [
        [
            name,
            f"{1 / taken.median(name):,.0f}/s",
            format_ratio(taken.ratio("FastAPI hello world", to=name)),
        ]
        for name in PATHS
    ]
    engine = create_engine(postgres_server_url, application="bench")
    title = f"Single entities, {connections} connections; {await describe_environment(engine)}"
    await engine.dispose()
    print(format_table(title, ["", "requests", "x hello"], rows))
