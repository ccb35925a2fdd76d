"""Lifetime of the receipts of workers that were killed."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.errors import Unavailable
from daybook_domain.intake.parsing import parse_delivery
from daybook_domain.intake.service import MessageOutcome
from daybook_platform.postgres.engine import create_engine, create_sessions
from daybook_platform.postgres.sessions import Sessions
from daybook_platform.rabbitmq.intake_consumer import IntakeConsumer
from daybook_worker.receipt_expiry import INTERVAL, MAX_GAP, RETENTION, ReceiptExpiry
from tests.integration.worker.intake import running_intake
from tests.support.amqp import AmqpClient
from tests.support.factories.dead_letters import consume_batch
from tests.support.factories.messages import order_message, product_update_message
from tests.support.oracles.shop_state import get_shop_state, get_visible_shop_state
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq

APPLIED, DUPLICATE = MessageOutcome.APPLIED, MessageOutcome.DUPLICATE
ORDER = parse_delivery("order", order_message())
REDELIVERED_ORDER = parse_delivery("order", order_message(), redelivered=True)


class StepClock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Expiry:
    """A consumer whose observations the test triggers."""

    def __init__(self, sessions: Sessions, consumer: IntakeConsumer) -> None:
        self._clock = StepClock()
        self._expiry = ReceiptExpiry(sessions, monotonic=self._clock)
        self._consumer = consumer

    async def observe(self, *, during: timedelta, every: timedelta = INTERVAL) -> None:
        for _ in range(during // every):
            await self._expiry.observe_if_due(self._consumer)
            self._clock.now += every.total_seconds()
        await self._expiry.observe_if_due(self._consumer)


@pytest.fixture
async def consumer(producer: AmqpClient, rabbitmq_url: str) -> AsyncIterator[IntakeConsumer]:
    """Return a consumer; the shop is open."""
    consumer = await IntakeConsumer.start(rabbitmq_url, application="tests", prefetch=1, timeout=10)
    yield consumer
    await consumer.close()


async def test_a_message_is_not_mistaken_for_one_that_a_killed_worker_acknowledged(
    sessions: Sessions, consumer: IntakeConsumer, engine: AsyncEngine
) -> None:
    restocking = product_update_message(1, stock_quantity=500)
    killed = await consume_batch(sessions, ORDER, parse_delivery("product_update", restocking))
    assert killed == [APPLIED, APPLIED]  # Acknowledged, but killed before the receipt was deleted.

    await Expiry(sessions, consumer).observe(during=RETENTION)

    again = parse_delivery("product_update", restocking, redelivered=True)
    assert await consume_batch(sessions, REDELIVERED_ORDER, again) == [APPLIED, APPLIED]
    assert (await get_shop_state(engine)).orders == 2


async def test_a_receipt_is_retained_while_the_redelivery_is_to_be_expected(
    sessions: Sessions, consumer: IntakeConsumer
) -> None:
    await consume_batch(sessions, ORDER)

    await Expiry(sessions, consumer).observe(during=RETENTION - INTERVAL)

    assert await consume_batch(sessions, REDELIVERED_ORDER) == [DUPLICATE]


async def test_the_time_starts_anew_with_each_consumer(
    sessions: Sessions, consumer: IntakeConsumer
) -> None:
    await consume_batch(sessions, ORDER)

    for _ in range(3):
        await Expiry(sessions, consumer).observe(during=RETENTION - INTERVAL)

    assert await consume_batch(sessions, REDELIVERED_ORDER) == [DUPLICATE]


async def test_time_between_distant_observations_does_not_count(
    sessions: Sessions, consumer: IntakeConsumer
) -> None:
    await consume_batch(sessions, ORDER)

    too_far = MAX_GAP + INTERVAL
    await Expiry(sessions, consumer).observe(during=3 * too_far, every=too_far)

    assert await consume_batch(sessions, REDELIVERED_ORDER) == [DUPLICATE]


async def test_an_outage_of_postgres_starts_the_time_anew(
    sessions: Sessions, consumer: IntakeConsumer, postgres_url: str
) -> None:
    await consume_batch(sessions, ORDER)

    async with Proxy(postgres_url) as proxy:
        engine = create_engine(proxy.url, application="tests")
        expiry = Expiry(create_sessions(engine), consumer)
        await expiry.observe(during=RETENTION - 2 * INTERVAL)
        await proxy.cut()
        await expiry.observe(during=INTERVAL)
        await proxy.restore()
        await expiry.observe(during=RETENTION - 2 * INTERVAL)
        await engine.dispose()

    assert await consume_batch(sessions, REDELIVERED_ORDER) == [DUPLICATE]


async def test_an_observation_without_rabbitmq_deletes_nothing(
    sessions: Sessions, consumer: IntakeConsumer
) -> None:
    await consume_batch(sessions, ORDER)
    expiry = Expiry(sessions, consumer)
    await expiry.observe(during=RETENTION - INTERVAL)
    await consumer.close()

    with pytest.raises(Unavailable):
        await expiry.observe(during=INTERVAL)

    assert await consume_batch(sessions, REDELIVERED_ORDER) == [DUPLICATE]


async def test_the_intake_expires_receipts_between_its_batches(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, sessions: Sessions
) -> None:
    clock = StepClock()
    await consume_batch(sessions, ORDER)
    async with running_intake(postgres_url, rabbitmq_url, monotonic=clock):
        for number in range(RETENTION // INTERVAL + 2):
            await producer.send("order", b"nonsense", message_id=f"{uuid4()}")
            await wait_until(lambda n=number: _has_letters(sessions, n + 1))  # type: ignore[misc]
            clock.now += INTERVAL.total_seconds()

    assert await consume_batch(sessions, REDELIVERED_ORDER) == [APPLIED]


async def _has_letters(sessions: Sessions, number: int) -> bool:
    async with sessions() as session:
        found = await get_visible_shop_state(await session.connection())
    return sum(map(len, found.dead_letters.values())) == number
