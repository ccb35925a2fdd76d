"""Memory of worker processes: neither a large day nor a flood of messages makes them grow."""

import asyncio
from datetime import UTC, date, datetime

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs.models import RunState
from daybook_domain.runs.tasks import BUILD_REPORT, BuildReport
from daybook_platform.postgres.sessions import Sessions
from tests.integration.platform.notes import sending
from tests.integration.worker.processes import StartWorker, wait_until_ready
from tests.integration.worker.runs import find_report_day, has_state, queue_run
from tests.support.amqp import AmqpClient
from tests.support.factories.messages import order_message
from tests.support.factories.shop import set_stock
from tests.support.oracles.shop_state import get_shop_state
from tests.support.processes import Service
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq

SMALL_DAY, LARGE_DAY = date(2026, 3, 1), date(2026, 3, 2)
LARGE = 200_000
MEGABYTE = 1_000_000


class MemoryMeter:
    """The growth of the resident memory of a process, at its highest sample."""

    def __init__(self, service: Service) -> None:
        """Take the present memory as the base."""
        self._process = psutil.Process(service.pid)
        self._base = self._process.memory_info().rss
        self.grown = 0

    def sample(self) -> None:
        """Include the present memory."""
        self.grown = max(self.grown, self._process.memory_info().rss - self._base)


@pytest.mark.usefixtures("producer")
async def test_a_worker_that_builds_a_large_day_does_not_grow(
    start_worker: StartWorker, amqp: AmqpClient, sessions: Sessions, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        for day, number in ((SMALL_DAY, 10), (LARGE_DAY, LARGE)):
            await connection.execute(
                text(
                    "INSERT INTO orders"
                    " (user_id, delivery_address_id, total_price, status, created_at)"
                    " SELECT 1, 1, 0, 'paid', :at FROM generate_series(1, :number)"
                ),
                {"at": datetime(day.year, day.month, day.day, 12, tzinfo=UTC), "number": number},
            )
    worker = start_worker("reports")
    await wait_until_ready(worker)
    async with sending(amqp.url) as queue:

        async def build(day: date) -> MemoryMeter:
            meter = MemoryMeter(worker)
            run_id = await queue_run(sessions, day=day)
            await queue.send(BUILD_REPORT, BuildReport(run_id=run_id))

            async def is_built() -> bool:
                meter.sample()
                return await has_state(sessions, run_id, RunState.SUCCEEDED)

            await wait_until(is_built, seconds=90, what=f"the report of {day}")
            return meter

        await build(SMALL_DAY)
        meter = await build(LARGE_DAY)

    report_day = await find_report_day(sessions, day=LARGE_DAY)
    assert report_day is not None
    assert report_day.orders_count == LARGE
    # The rows as Python objects would be more than 50 MB.
    assert meter.grown < 5 * MEGABYTE


async def test_a_flood_of_messages_stays_in_the_queue_and_not_in_the_worker(
    start_worker: StartWorker, producer: AmqpClient, engine: AsyncEngine
) -> None:
    batch, number = 20, 800
    worker = start_worker("intake", DAYBOOK_INTAKE_BATCH=str(batch))
    await wait_until_ready(worker)
    await set_stock(engine, 10_000)
    # White space is valid JSON; the flood is of 80 MB.
    large = order_message() + b" " * 100_000

    async def publish(count: int) -> None:
        for _ in range(0, count, 100):
            await asyncio.gather(*(producer.send("order", large) for _ in range(min(count, 100))))

    await publish(100)
    meter: MemoryMeter | None = None

    async def has_orders(count: int) -> bool:
        if meter is not None:
            meter.sample()
        return (await get_shop_state(engine)).orders >= count

    await wait_until(lambda: has_orders(100), what="the first orders")
    meter = MemoryMeter(worker)
    async with engine.begin() as connection:
        # Nothing can be acknowledged, so that the consumer gets as much as it asks for.
        await connection.execute(text("LOCK TABLE orders IN EXCLUSIVE MODE"))
        await publish(number)
        depth = await producer.depth("order")
        meter.sample()
    await wait_until(lambda: has_orders(100 + number), seconds=90, what="all orders")

    assert depth >= number - 10 * batch
    assert meter.grown < 20 * MEGABYTE
