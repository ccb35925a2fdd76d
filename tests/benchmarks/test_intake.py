"""Orders per second from RabbitMQ into Postgres, relative to each of the two alone.

Orders of three items each, published before the measurement, one process. The upper limit is a
plain aio-pika consumer that only acknowledges; the baseline is one ORM transaction per order.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count
from random import Random

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_platform.postgres.engine import create_engine, create_sessions
from daybook_worker.intake import IntakeProcessor
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.settings import WorkerSettings
from tests.benchmarks import shop_database
from tests.benchmarks.measurement import (
    Operation,
    describe_environment,
    format_ratio,
    format_table,
    measure_seconds,
    run_interleaved,
)
from tests.benchmarks.test_orders import OrderPlacer
from tests.support.amqp import AmqpClient
from tests.support.factories.messages import encode_message
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.benchmark, pytest.mark.rabbitmq, pytest.mark.timeout(1800)]

ROUNDS = 5
MESSAGES = 6000
ORM_ORDERS = 150
PREFETCH = 1000
PUBLISH_BATCH = 500


@pytest.fixture(scope="module")
async def shop(postgres_server_url: str) -> AsyncIterator[AsyncEngine]:
    """Yield a shop of a thousand users and products in a new database."""
    async with shop_database.created(postgres_server_url, name="intake") as engine:
        yield engine


@pytest.fixture(scope="module")
def shop_url(shop: AsyncEngine) -> str:
    """Return the URL of the database of the shop."""
    return shop.url.set(drivername="postgresql").render_as_string(hide_password=False)


class IntakeBench:
    """Fills the queue `order`, and measures several consumers that empty it."""

    def __init__(self, producer: AmqpClient, url: str, database_url: str) -> None:
        self._producer = producer
        self._url = url
        self._database_url = database_url
        self._random = Random(1)
        self._numbers = count()

    async def _fill(self, *, external_ids: bool) -> None:
        for first in range(0, MESSAGES, PUBLISH_BATCH):
            number = min(PUBLISH_BATCH, MESSAGES - first)
            orders = [self._order(external_ids=external_ids) for _ in range(number)]
            await asyncio.gather(*(self._producer.send("order", order) for order in orders))

    def _order(self, *, external_ids: bool) -> bytes:
        user = self._random.randint(1, 1000)
        order = {
            "user_id": user,
            "delivery_address_id": user,
            "items": [
                {"product_id": product, "quantity": self._random.randint(1, 5)}
                for product in self._random.sample(range(1, 1001), k=3)
            ],
        }
        return encode_message(
            order | ({"external_id": str(next(self._numbers))} if external_ids else {})
        )

    async def raw(self) -> float:
        """Only acknowledge."""
        await self._fill(external_ids=False)
        return await measure_seconds(self._acknowledge(read=False)) / MESSAGES

    async def read(self) -> float:
        """Acknowledge after reading the JSON."""
        await self._fill(external_ids=False)
        return await measure_seconds(self._acknowledge(read=True)) / MESSAGES

    async def _acknowledge(self, *, read: bool) -> None:
        connection = await aio_pika.connect(self._url)
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue("order")
        seen, done = count(1), asyncio.Event()

        async def consume(message: AbstractIncomingMessage) -> None:
            if read:
                json.loads(message.body)
            await message.ack()
            if next(seen) == MESSAGES:
                done.set()

        await queue.consume(consume)
        await done.wait()
        await connection.close()

    def intake(self, *, external_ids: bool) -> Operation:
        async def way() -> float:
            await self._fill(external_ids=external_ids)
            return await measure_seconds(self._consume_by_intake()) / MESSAGES

        return way

    async def _consume_by_intake(self) -> None:
        settings = WorkerSettings.model_validate(
            {"database_url": self._database_url, "broker_url": self._url}
        )
        engine = create_engine(self._database_url, application="bench intake")
        metrics = WorkerMetrics()
        processor = IntakeProcessor(
            engine, settings, sessions=create_sessions(engine), metrics=metrics
        )
        running = asyncio.create_task(processor.run())
        labels = {"queue": "order", "outcome": "applied"}

        async def done() -> bool:
            applied = metrics.registry.get_sample_value("daybook_intake_messages_total", labels)
            return (applied or 0) >= MESSAGES

        await wait_until(done, seconds=600)
        processor.stop()
        await running
        await engine.dispose()


async def test_intake_is_compared_with_a_raw_consumer_and_the_orm(
    shop: AsyncEngine, shop_url: str, rabbitmq_url: str
) -> None:
    placer = OrderPlacer(shop, ids=count(10_000_000), external_ids=False)
    async with AmqpClient.connected(rabbitmq_url) as producer:
        await producer.purge_intake_queues()
        bench = IntakeBench(producer, rabbitmq_url, shop_url)
        ways: dict[str, Operation] = {
            "consumer that only acknowledges": bench.raw,
            "… and reads the JSON": bench.read,
            "intake, without ids": bench.intake(external_ids=False),
            "intake, with external ids": bench.intake(external_ids=True),
            "ORM one by one, without a queue": placer.orm(ORM_ORDERS),
        }
        taken = await run_interleaved(ways, rounds=ROUNDS)
    raw, orm = "consumer that only acknowledges", "ORM one by one, without a queue"
    rows = [
        [
            way,
            f"{1 / taken.median(way):,.0f}",
            format_ratio(taken.ratio(raw, to=way)),
            format_ratio(taken.ratio(orm, to=way)),
        ]
        for way in ways
    ]
    title = f"{await describe_environment(shop)}; {MESSAGES:,} orders of three items, from RabbitMQ"
    print(format_table(title, ["orders", "/ s", "/ raw consumer", "/ ORM"], rows))
