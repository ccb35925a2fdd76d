"""What is left of a connection to RabbitMQ that did not come about?"""

import gc

import aio_pika
import pytest

from daybook_embedded.ports import free_port
from daybook_platform.rabbitmq.connections import close_later, connect
from tests.integration.worker.rabbit import Rabbit
from tests.support.proxy import Proxy
from tests.support.waiting import until


async def test_an_attempt_that_failed_is_closed_and_not_left_to_the_collector() -> None:
    url = f"amqp://127.0.0.1:{free_port()}/"
    with pytest.raises(ConnectionError) as failure:
        await connect(url, name="tests", timeout=5)

    (attempt,) = [
        found
        for found in gc.get_objects()
        if isinstance(found, aio_pika.Connection) and str(found.url).startswith(url)
    ]

    async def closed() -> bool:
        return attempt.is_closed

    await until(closed, seconds=5, what="the end of the attempt")
    # Until here its traceback keeps the connection from being collected.
    assert failure.value.__traceback__ is not None


async def test_a_connection_whose_end_is_never_confirmed_is_closed_nevertheless(
    rabbit: Rabbit,
) -> None:
    async with Proxy(rabbit.url) as proxy:
        connection = await connect(proxy.url, name="tests", timeout=5)

        async def closed() -> bool:
            return connection.is_closed

        proxy.swallow()
        close_later(connection)
        await until(closed, seconds=5, what="its end, without an answer")
