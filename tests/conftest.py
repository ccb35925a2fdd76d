"""Fixtures of all tests: real servers, started once per run, and a migrated database."""

import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_platform.postgres import migrate
from daybook_platform.postgres.engine import Sessions, create_engine, create_sessions
from tests.support.postgres import temporary_database, truncate_tables
from tests.support.servers import POSTGRES, RABBITMQ, REDIS, Kind, Server, provide

KINDS = (POSTGRES, RABBITMQ, REDIS)
SERVERS = pytest.StashKey[dict[str, Server]]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers concurrently, unless only unit tests were requested.

    If the tests run in several processes, the first process starts the servers for all.
    """
    config.stash[SERVERS] = {}
    if (given := getattr(config, "workerinput", None)) is not None:
        shares: dict[str, tuple[str, str]] = given["servers"]
        config.stash[SERVERS] = {
            name: Server(url=url, provider=provider) for name, (url, provider) in shares.items()
        }
    elif not (config.option.collectonly or _only_unit_tests(config)):
        with ThreadPoolExecutor() as pool:
            servers = zip([kind.name for kind in KINDS], pool.map(provide, KINDS), strict=True)
        config.stash[SERVERS] = dict(servers)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Assign its own part of each server to one of several test processes."""
    servers = node.config.stash[SERVERS]
    number = int(node.gateway.id.removeprefix("gw"))
    node.workerinput["servers"] = {
        kind.name: (kind.partition_url(server, number) if server.url else "", server.provider)
        for kind in KINDS
        if (server := servers.get(kind.name)) is not None
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers that this process started."""
    for server in config.stash.get(SERVERS, {}).values():
        server.stop()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Return the provider of each server."""
    servers = config.stash[SERVERS]
    return [f"{name}: {server.provider}" for name, server in servers.items()]


def _only_unit_tests(config: pytest.Config) -> bool:
    unit = config.rootpath / "tests" / "unit"
    named = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    return all(path.is_relative_to(unit) for path in named)


def _url(request: pytest.FixtureRequest, kind: Kind) -> str:
    servers = request.config.stash[SERVERS]
    server = servers.get(kind.name)
    if server is None:
        pytest.fail("servers are not started for unit tests; move this test to tests/integration")
    if not server.url:
        pytest.skip(f"{kind.name} is unavailable: {server.provider}")
    return server.url


@pytest.fixture(scope="session")
def postgres_server_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a Postgres server that allows creating databases."""
    return _url(request, POSTGRES)


@pytest.fixture(scope="session")
def rabbitmq_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a RabbitMQ server; skip the test if none is available."""
    return _url(request, RABBITMQ)


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a Redis server."""
    return _url(request, REDIS)


@pytest.fixture(scope="session")
async def postgres_url(postgres_server_url: str) -> AsyncIterator[str]:
    """Return the URL of a migrated database that only this process uses."""
    async with temporary_database(postgres_server_url, name=f"daybook_test_{os.getpid()}") as url:
        await migrate.upgrade(url)
        yield url


@pytest.fixture(scope="session")
async def engine(postgres_url: str) -> AsyncIterator[AsyncEngine]:
    """Return an engine of the migrated database."""
    engine = create_engine(postgres_url, application="tests", pool_size=20)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
def sessions(engine: AsyncEngine) -> Sessions:
    """Return a session factory of the migrated database."""
    return create_sessions(engine)


@pytest.fixture
async def clean(engine: AsyncEngine) -> None:
    """Truncate all tables before the test."""
    await truncate_tables(engine)
