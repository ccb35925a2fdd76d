"""Provisioning of Postgres, RabbitMQ and Redis for the tests.

Each server comes from the first available of: the URL in `DAYBOOK_TEST_POSTGRES_URL`,
`DAYBOOK_TEST_RABBITMQ_URL` or `DAYBOOK_TEST_REDIS_URL`; a container, if a Docker engine responds
and has the image or can pull it; a private process of `daybook_embedded`.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException, ImageNotFound
from testcontainers.community.postgres import PostgresContainer
from testcontainers.community.redis import RedisContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy
from yarl import URL

from daybook_embedded.data_directory import scratch_folder
from daybook_embedded.postgres import PostgresServer
from daybook_embedded.rabbitmq import RabbitServer, find_rabbitmq
from daybook_embedded.valkey import ValkeyServer

# Test data need not survive a crash of the machine.
NON_DURABLE = (
    "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200"
)


@dataclass(frozen=True)
class Server:
    """A running server; an empty `url` means that none is available."""

    url: str
    provider: str
    stop: Callable[[], object] = lambda: None
    control: Callable[[Sequence[str]], object] | None = None
    """Runs the administration command of the server; None for a server given by its URL."""


@dataclass(frozen=True)
class Kind:
    """A kind of server that the tests need, and its providers."""

    name: str
    variable: str
    image: str
    start_container: Callable[[str], Server]
    start_process: Callable[[Path], Server]
    partition_url: Callable[[Server, int], str]
    """Returns the URL of the part of a server that is reserved for the numbered test process."""


def provide(kind: Kind) -> Server:
    """Return a server of `kind` from the first available provider."""
    if url := os.environ.get(kind.variable):
        return Server(url=url, provider=kind.variable)
    if has_image(kind.image):
        return kind.start_container(kind.image)
    with ExitStack() as stack:
        server = kind.start_process(stack.enter_context(scratch_folder()))
        stack.callback(server.stop)
        # Stopping the server also removes its folder.
        return replace(server, stop=stack.pop_all().close)


def has_image(image: str) -> bool:
    """Return whether a Docker engine responds and has `image` or can pull it."""
    try:
        client = docker.from_env(timeout=60)
        try:
            client.images.get(image)
        except ImageNotFound:
            client.images.pull(image)
        finally:
            client.close()
    except DockerException:
        return False
    return True


def _postgres_container(image: str) -> Server:
    container = PostgresContainer(
        image, username="daybook", password="daybook", dbname="daybook", driver=None
    ).with_command(f"postgres {NON_DURABLE}")
    container.start()
    return Server(container.get_connection_url(), f"container {image}", container.stop)


def _postgres_process(folder: Path) -> Server:
    server = PostgresServer(folder, durable=False)
    return Server(server.start(), "private process", server.stop)


def _rabbitmq_container(image: str) -> Server:
    container = (
        DockerContainer(image)
        .with_exposed_ports(5672)
        .waiting_for(LogMessageWaitStrategy("Server startup complete"))
    )
    container.start()
    host, port = container.get_container_host_ip(), container.get_exposed_port(5672)

    def control(arguments: Sequence[str]) -> None:
        ended = container.exec(["rabbitmqctl", *arguments])
        assert ended.exit_code == 0, ended.output

    return Server(
        f"amqp://guest:guest@{host}:{port}/", f"container {image}", container.stop, control
    )


def _rabbitmq_process(folder: Path) -> Server:
    if find_rabbitmq() is None:
        return Server("", "unavailable: no Docker engine, and no rabbitmq-server on the PATH")
    server = RabbitServer(folder)
    return Server(server.start(), "private process", server.stop, server.control)


def _redis_container(image: str) -> Server:
    container = RedisContainer(image)
    container.start()
    host, port = container.get_container_host_ip(), container.get_exposed_port(6379)
    return Server(f"redis://{host}:{port}/0", f"container {image}", container.stop)


def _valkey_process(folder: Path) -> Server:
    server = ValkeyServer(folder)
    return Server(server.start(), "private process (Valkey)", server.stop)


def _whole_server(server: Server, _: int) -> str:
    """Return the URL unchanged: each test process creates its own databases."""
    return server.url


def _virtual_host(server: Server, number: int) -> str:
    if server.control is None:
        raise pytest.UsageError(
            "Parallel tests need a virtual host per process, which cannot be created on a "
            f"RabbitMQ given by {RABBITMQ.variable}; run pytest with -n 0."
        )
    url, name = URL(server.url), f"tests-{number}"
    server.control(["add_vhost", name])
    server.control(["set_permissions", "-p", name, url.user or "", ".*", ".*", ".*"])
    return str(url.with_path(f"/{name}"))


def _numbered_database(server: Server, number: int) -> str:
    return str(URL(server.url).with_path(f"/{number}"))


POSTGRES = Kind(
    "postgres",
    "DAYBOOK_TEST_POSTGRES_URL",
    os.environ.get("DAYBOOK_TEST_POSTGRES_IMAGE", "postgres:15"),
    _postgres_container,
    _postgres_process,
    _whole_server,
)
RABBITMQ = Kind(
    "rabbitmq",
    "DAYBOOK_TEST_RABBITMQ_URL",
    os.environ.get("DAYBOOK_TEST_RABBITMQ_IMAGE", "rabbitmq:3.10-management"),
    _rabbitmq_container,
    _rabbitmq_process,
    _virtual_host,
)
REDIS = Kind(
    "redis",
    "DAYBOOK_TEST_REDIS_URL",
    os.environ.get("DAYBOOK_TEST_REDIS_IMAGE", "redis:7.0"),
    _redis_container,
    _valkey_process,
    _numbered_database,
)
