"""Where do the tests get their Postgres, RabbitMQ and Redis from?

Each comes from the first of: `DAYBOOK_TEST_POSTGRES_URL`, `DAYBOOK_TEST_RABBITMQ_URL` or
`DAYBOOK_TEST_REDIS_URL`; a container, when a Docker engine answers and the image is at hand or can
be pulled; a private process of `daybook_embedded`.
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

# Tests lose nothing that matters when the machine crashes.
HASTY = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200"


@dataclass(frozen=True)
class Server:
    """A running server, who provides it, and how to end it; no url: there is none to be had."""

    url: str
    provider: str
    stop: Callable[[], object] = lambda: None
    control: Callable[[Sequence[str]], object] | None = None
    """Runs the server's own administration command, where it is ours to administer."""


@dataclass(frozen=True)
class Kind:
    """One of the servers that the tests need, and the ways to get it."""

    name: str
    variable: str
    image: str
    contain: Callable[[str], Server]
    embed: Callable[[Path], Server]
    part: Callable[[Server, int], str]
    """Returns the URL of the part of a server that the test process of that number has alone."""


def provide(kind: Kind) -> Server:
    """Return a server of `kind`, from the first provider that has one."""
    if url := os.environ.get(kind.variable):
        return Server(url=url, provider=kind.variable)
    if has_image(kind.image):
        return kind.contain(kind.image)
    with ExitStack() as stack:
        server = kind.embed(stack.enter_context(scratch_folder()))
        stack.callback(server.stop)
        # Kept until it is stopped, its folder too.
        return replace(server, stop=stack.pop_all().close)


def has_image(image: str) -> bool:
    """Tell whether a Docker engine answers and has `image`, or can pull it."""
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
    ).with_command(f"postgres {HASTY}")
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
        return Server("", "none: no engine, and no rabbitmq-server on the PATH")
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


def _all_of_it(server: Server, _: int) -> str:
    """Return the URL as it is: each process makes databases of its own."""
    return server.url


def _virtual_host(server: Server, number: int) -> str:
    if server.control is None:
        raise pytest.UsageError(
            "Tests in several processes need a virtual host each, which cannot be made on a "
            f"RabbitMQ that is given by {RABBITMQ.variable}: run pytest with -n 0."
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
    _all_of_it,
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
