"""Fixtures of the end-to-end tests: private servers, because these tests stop and restart them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from daybook_embedded.data_directory import scratch_folder
from daybook_embedded.postgres import PostgresServer
from daybook_embedded.rabbitmq import RabbitServer, find_rabbitmq
from tests.e2e.stack import Stack, running_stack


@pytest.fixture(scope="session")
def private_folder() -> Iterator[Path]:
    """Yield a folder for the data of private servers."""
    with scratch_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def private_postgres(private_folder: Path) -> Iterator[PostgresServer]:
    """Yield a Postgres that a test may stop and start again."""
    with PostgresServer(private_folder / "postgres", durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def private_rabbitmq(private_folder: Path) -> Iterator[RabbitServer]:
    """Yield a RabbitMQ that a test may stop and start again."""
    if find_rabbitmq() is None:
        pytest.skip("no rabbitmq-server on the PATH to stop and start")
    with RabbitServer(private_folder / "rabbitmq") as server:
        yield server


@pytest.fixture
async def stack(
    private_postgres: PostgresServer,
    private_rabbitmq: RabbitServer,
    redis_url: str,
    tmp_path: Path,
) -> AsyncIterator[Stack]:
    """Yield a stack without any service yet, in a time zone with an offset and DST."""
    async with running_stack(
        postgres=private_postgres,
        rabbitmq=private_rabbitmq,
        redis_url=redis_url,
        folder=tmp_path,
        timezone="Europe/Berlin",
        name=f"e2e_{abs(hash(tmp_path))}",
    ) as stack:
        yield stack
