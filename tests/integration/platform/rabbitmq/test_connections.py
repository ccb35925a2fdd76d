"""Closing of RabbitMQ connections that failed or do not respond."""

import gc

import aio_pika
import pytest

from daybook_embedded.ports import free_port
from daybook_platform.rabbitmq.connections import close_later, connect
from tests.support.amqp import AmqpClient
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until


async def test_a_failed_connection_attempt_is_closed_before_garbage_collection() -> None:
    url = f"amqp://127.0.0.1:{free_port()}/"
    with pytest.raises(ConnectionError) as failure:
        await connect(url, name="tests", timeout=5)

    (connection,) = [
        found
        for found in gc.get_objects()
        if isinstance(found, aio_pika.Connection) and str(found.url).startswith(url)
    ]

    async def closed() -> bool:
        return connection.is_closed

    await wait_until(closed, seconds=5, what="closing of the failed connection")
    # The traceback is referenced until here, so the connection was not garbage-collected.
    assert failure.value.__traceback__ is not None


async def test_a_connection_is_closed_even_if_the_server_never_confirms(
    amqp: AmqpClient,
) -> None:
    async with Proxy(amqp.url) as proxy:
        connection = await connect(proxy.url, name="tests", timeout=5)

        async def closed() -> bool:
            return connection.is_closed

        proxy.stall()
        close_later(connection)
        await wait_until(closed, seconds=5, what="closing without a response")
