"""The real servers of the tests, started once a run beside the first tests, and their database."""

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_platform.postgres.engine import create_engine, create_sessions
from daybook_platform.postgres.sessions import Sessions
from tests.support.distribution import GroupScheduling
from tests.support.postgres import migrated_database, truncate_tables
from tests.support.servers import POSTGRES, RABBITMQ, REDIS, Kind, Server, provide

KINDS = (POSTGRES, RABBITMQ, REDIS)
START_SECONDS = 120.0
FIRST_FOLDERS = ("docs", "unit")
"""Folders of the tests that need no server; they run while the servers start."""

settings.register_profile("quick", max_examples=10)
settings.register_profile("thorough", max_examples=100)
settings.load_profile("quick")


@dataclass(frozen=True)
class ServerStarts:
    """The servers that this process starts, and the files that pass them to test processes."""

    pool: ThreadPoolExecutor
    folder: Path
    servers: dict[str, Future[Server]] = field(default_factory=dict)


STARTS = pytest.StashKey[ServerStarts]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin to start the servers, unless only unit tests are selected."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Shells start background jobs like this. Child processes would inherit it, and a test
        # that interrupts one would wait forever.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    starts = ServerStarts(ThreadPoolExecutor(), Path(tempfile.mkdtemp(prefix="daybook-tests-")))
    config.stash[STARTS] = starts
    if not _is_unit_tests_only(config):
        starts.servers.update({kind.name: starts.pool.submit(provide, kind) for kind in KINDS})


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give one of several test processes its own part of each server, as soon as it is started."""
    starts: ServerStarts = node.config.stash[STARTS]
    number = int(node.gateway.id.removeprefix("gw"))
    folder = starts.folder / str(number)
    folder.mkdir()
    node.workerinput["servers"] = str(folder) if starts.servers else ""
    for kind in KINDS:
        if kind.name in starts.servers:
            starts.pool.submit(_pass_on, folder, kind, starts.servers[kind.name], number)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Give tests that share expensive fixtures to one process."""
    return GroupScheduling(config, log)


def _pass_on(folder: Path, kind: Kind, starting: Future[Server], number: int) -> None:
    try:
        server = starting.result()
        url, error = (kind.partition_url(server, number) if server.url else ""), ""
        note = {"url": url, "provider": server.provider, "error": error}
    except BaseException as failure:
        note = {"url": "", "provider": "", "error": repr(failure)}
    incomplete = folder / f"{kind.name}.part"
    incomplete.write_text(json.dumps(note))
    incomplete.rename(folder / f"{kind.name}.json")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests without servers first, while the servers start."""
    items.sort(key=lambda item: _folder(item) not in FIRST_FOLDERS)


def _folder(item: pytest.Item) -> str:
    return item.nodeid.split("/")[1]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Report the provider of each server."""
    if (starts := config.stash.get(STARTS, None)) is not None:
        for name, starting in starts.servers.items():
            if starting.done() and starting.exception() is None:
                terminalreporter.write_line(f"{name}: {starting.result().provider}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers that were started."""
    if (starts := config.stash.get(STARTS, None)) is None:
        return
    starts.pool.shutdown(wait=True)
    stops = [s.result().stop for s in starts.servers.values() if s.exception() is None]
    with ThreadPoolExecutor() as pool:
        for stopping in [pool.submit(stop) for stop in stops]:
            stopping.result()
    shutil.rmtree(starts.folder)


def _is_unit_tests_only(config: pytest.Config) -> bool:
    folders = [config.rootpath / "tests" / name for name in FIRST_FOLDERS]
    named = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    return all(any(path.is_relative_to(folder) for folder in folders) for path in named)


def _get_url(request: pytest.FixtureRequest, kind: Kind) -> str:
    url, provider = _wait_for_server(request.config, kind)
    if not url:
        pytest.skip(f"{kind.name} is not available: {provider}")
    return url


def _wait_for_server(config: pytest.Config, kind: Kind) -> tuple[str, str]:
    """Return the URL and the provider of a server when it is started."""
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    if given is None:
        starting = config.stash[STARTS].servers.get(kind.name)
        if starting is None:
            pytest.fail("servers are not started for unit tests; this test belongs elsewhere")
        server = starting.result(START_SECONDS)
        return server.url, server.provider
    if not given["servers"]:
        pytest.fail("servers are not started for unit tests; this test belongs elsewhere")
    file, deadline = Path(given["servers"]) / f"{kind.name}.json", time.monotonic() + START_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            pytest.fail(f"{kind.name} was not started in {START_SECONDS:g} s")
        time.sleep(0.05)
    note: dict[str, str] = json.loads(file.read_text())
    if note["error"]:
        pytest.fail(f"{kind.name} was not started: {note['error']}")
    return note["url"], note["provider"]


@pytest.fixture(scope="session")
def postgres_server_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a Postgres where databases may be made."""
    return _get_url(request, POSTGRES)


@pytest.fixture(scope="session")
def rabbitmq_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a RabbitMQ; skips where there is none."""
    return _get_url(request, RABBITMQ)


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a Redis."""
    return _get_url(request, REDIS)


@pytest.fixture(scope="session")
async def postgres_url(postgres_server_url: str) -> AsyncIterator[str]:
    """Return the URL of a migrated database of this run's own."""
    async with migrated_database(postgres_server_url, name=f"daybook_test_{os.getpid()}") as url:
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
    """Empty all tables before the test."""
    await truncate_tables(engine)
