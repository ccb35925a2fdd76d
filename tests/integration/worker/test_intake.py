"""Intake of messages: each is processed exactly once, also across outages and redeliveries."""

import asyncio
import json

import aio_pika
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from daybook_domain.intake.messages import Queue
from daybook_domain.intake.parsing import DEAD_LETTER_QUEUE
from daybook_platform.rabbitmq.queue_arguments import DELIVERY_LIMIT
from daybook_worker.metrics import WorkerMetrics
from tests.integration.worker.intake import is_consuming, running_intake
from tests.support.amqp import AmqpClient
from tests.support.factories.messages import (
    order_message,
    order_update_message,
    product_message,
    product_update_message,
)
from tests.support.oracles.shop_state import ShopState, get_shop_state
from tests.support.postgres import wait_for_blocked_transaction
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq


async def wait_for_shop_state(
    engine: AsyncEngine, *, orders: int, dead_letters: int = 0
) -> ShopState:
    """Wait for these numbers of orders and dead letters, and return the shop state."""

    async def find_state() -> ShopState | None:
        seen = await get_shop_state(engine)
        found = (seen.orders, sum(map(len, seen.dead_letters.values())))
        return seen if found == (orders, dead_letters) else None

    seen = await wait_until(find_state, what=f"{orders} orders and {dead_letters} dead letters")
    assert seen is not None
    return seen


async def test_a_producer_can_order_a_product_that_it_has_just_added(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    async with running_intake(postgres_url, rabbitmq_url):
        await producer.send("product", product_message(stock=7))
        await producer.send("order", order_message(product=2, quantity=3))
        await producer.send("order_update", order_update_message(1, status="paid"))
        await producer.send("product_update", product_update_message(2, name="zest"))

        async def is_done() -> bool:
            async with engine.connect() as connection:
                found = await connection.execute(
                    text("SELECT (SELECT status FROM orders), (SELECT max(name) FROM products)")
                )
                return tuple(found.one()) == ("paid", "zest")

        await wait_until(is_done)
        await wait_until(lambda: _is_empty(producer))

    seen = await get_shop_state(engine)
    assert (seen.sold, seen.stock) == ({2: 3}, {1: 1000, 2: 4})


async def test_a_message_that_cannot_be_processed_is_dead_lettered_and_blocks_no_other(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    invalid = [
        b"",
        b"nonsense",
        b"\xff\x00\xfe",
        b"[" * 200_000,
        b'{"name": "x", "price": NaN}',
        product_message(name="a\0b"),
        order_message(user=10**300),
        order_message(quantity=10**9),
        order_message(external_id="x" * 10_000_000),
    ]
    async with running_intake(postgres_url, rabbitmq_url):
        for queue in Queue:
            for body in invalid:
                await producer.send(queue, body)
        await producer.send("order", order_message())
        seen = await wait_for_shop_state(engine, orders=1, dead_letters=len(invalid) * len(Queue))

    assert seen.dead_letters.keys() == {"kept"}
    assert await producer.count_intake_messages() == 0


async def test_an_unknown_field_is_counted_and_has_no_effect(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    metrics = WorkerMetrics()
    async with running_intake(postgres_url, rabbitmq_url, metrics=metrics):
        await producer.send("order", order_message(colour="red"))
        await wait_for_shop_state(engine, orders=1)

        async def is_counted() -> bool:
            labels = {"queue": "order", "field": "colour"}
            name = "daybook_intake_unknown_fields_total"
            return metrics.registry.get_sample_value(name, labels) == 1

        await wait_until(is_counted)


async def test_unusual_message_properties_are_accepted(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    async with running_intake(postgres_url, rabbitmq_url):
        await producer.send("order", order_message(), message_id="a\0b")
        headers = {"numbers": [1.5, bytearray(b"\xff"), {"x": None}], "text": "\0"}
        await producer.send("order", b"?", headers=headers)
        await producer.send(
            "order", order_message(), content_type="text/plain", priority=9, message_type="?"
        )
        await wait_for_shop_state(engine, orders=1, dead_letters=2)


async def test_a_redelivered_message_has_no_second_effect(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    async with Proxy(rabbitmq_url) as proxy, running_intake(postgres_url, proxy.url) as intake:
        async with engine.begin() as connection:
            # The batch can start, but not finish.
            await connection.execute(text("LOCK TABLE orders IN EXCLUSIVE MODE"))
            await producer.send_all(("order", order_message()) for _ in range(50))
            await producer.send("order", b"nonsense")
            await wait_for_blocked_transaction(engine)
            proxy.stall()
        await wait_until(lambda: _has_orders(engine), what="a batch whose acknowledgement is lost")
        await proxy.cut()
        await proxy.restore()
        await wait_until(lambda: is_consuming(intake), what="consuming again")
        await wait_for_shop_state(engine, orders=50, dead_letters=1)
        await wait_until(lambda: _is_empty(producer))

    assert (await get_shop_state(engine)).stock == {1: 950}
    assert await producer.count_intake_messages() == 0


async def test_messages_are_retained_while_postgres_is_unavailable_and_then_processed(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    async with Proxy(postgres_url) as proxy, running_intake(proxy.url, rabbitmq_url) as intake:
        await producer.send("order", order_message())
        await wait_for_shop_state(engine, orders=1)
        await proxy.cut()
        await producer.send_all(("order", order_message()) for _ in range(100))
        await producer.send("order", b"nonsense")

        async def is_delivered() -> bool:
            return await producer.depth("order") == 0

        await wait_until(is_delivered, what="the delivery of all messages")
        assert await is_consuming(intake)
        await proxy.restore()
        await wait_for_shop_state(engine, orders=101, dead_letters=1)

    assert await producer.count_intake_messages() == 0
    async with engine.connect() as connection:
        headers = (await connection.execute(text("SELECT headers FROM dead_letters"))).scalar_one()
    assert "x-delivery-count" not in headers, "expected no redelivery during the outage"


async def test_deliveries_lost_during_an_outage_of_postgres_are_not_waited_with(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    async with (
        Proxy(postgres_url) as postgres,
        Proxy(rabbitmq_url) as rabbitmq,
        running_intake(postgres.url, rabbitmq.url) as intake,
    ):
        with capture_logs() as lines:
            await postgres.cut()
            await producer.send("order", order_message())

            async def is_being_committed() -> bool:
                return any(line["event"].startswith("batch not committed") for line in lines)

            await wait_until(is_being_committed)
        await rabbitmq.cut()

        async def is_noticed() -> bool:
            return not await is_consuming(intake)

        await wait_until(is_noticed, what="the lost channel, while Postgres is unavailable")
        await rabbitmq.restore()
        await postgres.restore()
        await wait_for_shop_state(engine, orders=1)


async def test_a_commit_whose_confirmation_is_lost_has_one_effect(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    async with Proxy(postgres_url) as proxy, running_intake(proxy.url, rabbitmq_url):
        for _ in range(10):
            await producer.send_all(("order", order_message()) for _ in range(20))
            # At a random point of the processing of a batch.
            await proxy.cut()
            await proxy.restore()
        await wait_for_shop_state(engine, orders=200)

    assert (await get_shop_state(engine)).stock == {1: 800}


async def test_several_workers_share_the_queues(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    async with (
        running_intake(postgres_url, rabbitmq_url, intake_batch=10),
        running_intake(postgres_url, rabbitmq_url, intake_batch=10),
    ):
        for n in range(250):
            await producer.send("order", order_message(external_id=str(n)), message_id=str(n))
            if n % 5 == 0:  # A duplicate message, and a duplicate order.
                await producer.send("order", order_message(external_id=str(n)), message_id=str(n))
                await producer.send("order", order_message(external_id=str(n)))
        seen = await wait_for_shop_state(engine, orders=250)
        await wait_until(lambda: _is_empty(producer))

    assert seen.stock == {1: 750}
    assert (await get_shop_state(engine)).dead_letters == {}


async def test_the_last_units_of_a_product_are_sold_once(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    await producer.send("product", product_message(stock=10))
    async with (
        running_intake(postgres_url, rabbitmq_url, intake_batch=3),
        running_intake(postgres_url, rabbitmq_url, intake_batch=3),
    ):
        await wait_until(lambda: _has_product(engine, 2))
        await asyncio.gather(*(producer.send("order", order_message(product=2)) for _ in range(50)))
        seen = await wait_for_shop_state(engine, orders=10, dead_letters=40)

    assert seen.stock[2] == 0
    assert set(seen.dead_letters["kept"]) == {("order", "out_of_stock")}


async def test_a_message_at_the_delivery_limit_becomes_a_dead_letter_in_the_table(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    await producer.send("order", order_message(quantity=3))
    queue = await producer.channel.get_queue("order")
    for _ in range(DELIVERY_LIMIT + 1):
        message = await wait_until(lambda: queue.get(fail=False), what="the message")
        assert message is not None
        await message.nack(requeue=True)

    async def is_dead_lettered() -> bool:
        return await producer.depth(DEAD_LETTER_QUEUE) == 1

    await wait_until(is_dead_lettered)
    async with running_intake(postgres_url, rabbitmq_url):
        seen = await wait_for_shop_state(engine, orders=0, dead_letters=1)

    assert seen.dead_letters == {"kept": [("order", "delivery_limit")]}
    async with engine.connect() as connection:
        dead_letter = (await connection.execute(text("SELECT * FROM dead_letters"))).one()
    assert json.loads(bytes(dead_letter.body)) == json.loads(order_message(quantity=3))
    assert dead_letter.headers["x-death"][0]["reason"] == "delivery_limit"


async def test_suspect_messages_are_delivered_one_by_one_and_do_not_block_the_others(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    await producer.send_all(("order", order_message()) for _ in range(20))
    for _ in range(4):  # As if four workers had crashed with all of them unacknowledged.
        connection = await aio_pika.connect(rabbitmq_url)
        queue = await (await connection.channel()).get_queue("order")
        for _ in range(20):
            await wait_until(lambda q=queue: q.get(fail=False), what="a message")  # type: ignore[misc]
        await connection.close()
    await producer.send_all(("order", order_message()) for _ in range(20))

    async with running_intake(postgres_url, rabbitmq_url):
        await wait_for_shop_state(engine, orders=40)

    assert await producer.count_intake_messages() == 0


async def test_a_queue_with_other_arguments_is_reported_and_consumed_once_it_is_replaced(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    await producer.channel.queue_delete("order")
    await producer.channel.declare_queue("order", durable=True)
    try:
        async with running_intake(postgres_url, rabbitmq_url, wait_until_consuming=False) as intake:

            async def is_explained() -> bool:
                try:
                    await intake.ping()
                except Exception as error:
                    return "'order' exists with other arguments" in str(error)
                return False

            await wait_until(is_explained, what="the reason in the readiness check")
            await producer.channel.queue_delete("order")
            await wait_until(lambda: is_consuming(intake), what="consuming from the new queue")
            await producer.send("order", order_message())
            await wait_for_shop_state(engine, orders=1)
    finally:
        await producer.channel.queue_delete("order")


async def test_a_stop_requeues_the_messages_of_batches_that_were_not_started(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("LOCK TABLE orders IN EXCLUSIVE MODE"))
        async with running_intake(postgres_url, rabbitmq_url, intake_batch=5) as intake:
            await producer.send_all(("order", order_message()) for _ in range(20))
            await wait_for_blocked_transaction(engine)
            intake.stop()
            await connection.commit()
    processed = (await get_shop_state(engine)).orders

    async def is_requeued() -> bool:
        return await producer.depth("order") == 20 - processed

    await wait_until(is_requeued)
    assert 1 <= processed <= 5


async def _has_product(engine: AsyncEngine, product_id: int) -> bool:
    return product_id in (await get_shop_state(engine)).stock


async def _has_orders(engine: AsyncEngine) -> bool:
    return (await get_shop_state(engine)).orders > 0


async def _is_empty(producer: AmqpClient) -> bool:
    return await producer.count_intake_messages() == 0
