"""Private RabbitMQ: durability, isolation, and restarts after a kill.

Each start takes seconds, so the tests share one server and its restarts.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import psutil
import pytest
from aio_pika.abc import AbstractIncomingMessage

from daybook_embedded.rabbitmq import RabbitServer, find_rabbitmq
from daybook_platform.rabbitmq.topology import declare_run_queues

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.skipif(find_rabbitmq() is None, reason="rabbitmq-server is not installed"),
]


@pytest.fixture(scope="module")
def server(shared_folder: Path) -> Iterator[RabbitServer]:
    """Return a running server, which tests may restart."""
    server = RabbitServer(shared_folder / "rabbitmq")
    # Settings of the machine's own installation must not reach this server.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RABBITMQ_NODENAME", "rabbit@localhost")
        patch.setenv("RABBITMQ_NODE_PORT", "5672")
        server.start()
    yield server
    server.stop()


def family(server: RabbitServer) -> list[psutil.Process]:
    """Return the node, its child processes, and the name service."""
    # The test session may have started another server from this process.
    own = [p for p in psutil.Process().children() if server.data_dir in Path(p.cwd()).parents]
    return own + [helper for p in own for helper in p.children(recursive=True)]


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process has ended; a zombie has."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def publish(server: RabbitServer, text: str) -> None:
    """Publish a durable message to the queue `durable`."""
    connection = await aio_pika.connect(server.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            "durable", durable=True, arguments={"x-queue-type": "quorum"}
        )
        message = aio_pika.Message(text.encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key=queue.name)


async def consume(server: RabbitServer) -> str:
    """Return the next message of the queue `durable`."""
    connection = await aio_pika.connect(server.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.get_queue("durable")
        message = await queue.get(timeout=10)
        await message.ack()
        return message.body.decode()


async def test_the_server_ignores_the_machines_settings_and_listens_on_loopback_only(
    server: RabbitServer,
) -> None:
    addresses = {
        connection.laddr.ip
        for process in family(server)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert ":5672/" not in server.url
    assert addresses <= {"127.0.0.1", "::1"}


async def test_a_message_survives_a_stop_that_leaves_no_process(server: RabbitServer) -> None:
    await publish(server, "before the stop")
    before, url = family(server), server.url

    server.stop()
    left = [process for process in before if not has_ended(process)]
    server.start()

    assert len(before) > 2
    assert left == []
    assert server.url == url
    assert await consume(server) == "before the stop"


async def test_a_message_survives_a_kill(server: RabbitServer) -> None:
    await publish(server, "before the kill")
    os.kill(server.pid, signal.SIGKILL)

    server.stop()
    server.start()

    assert await consume(server) == "before the kill"


async def ignore(_: AbstractIncomingMessage) -> None:
    """Do not acknowledge the message."""


async def test_a_queue_with_a_consumer_survives_a_kill_right_after_its_creation(
    server: RabbitServer,
) -> None:
    connection = await aio_pika.connect(server.url)
    async with connection:
        queue = await declare_run_queues(await connection.channel())
        await queue.consume(ignore)
        os.kill(server.pid, signal.SIGKILL)
    server.stop()
    server.start()

    connection = await aio_pika.connect(server.url)
    async with connection, asyncio.timeout(20):
        queue = await declare_run_queues(await connection.channel())
        await queue.consume(ignore)
