"""The process of the role `intake`: crashes, stops, and an unsuitable broker."""

import signal

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.worker.processes import StartWorker, wait_for_exit, wait_until_ready
from tests.support.amqp import AmqpClient
from tests.support.factories.messages import order_message
from tests.support.oracles.shop_state import get_shop_state
from tests.support.postgres import wait_for_blocked_transaction
from tests.support.processes import wait_for_health_url, wait_for_log_entry
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq


async def has_orders(engine: AsyncEngine, number: int) -> bool:
    return (await get_shop_state(engine)).orders >= number


async def test_a_worker_killed_between_commit_and_acknowledgement_duplicates_nothing(
    start_worker: StartWorker, producer: AmqpClient, engine: AsyncEngine, rabbitmq_url: str
) -> None:
    for _ in range(40):
        await producer.send("order", order_message())  # Identical, and without ids.
    await producer.send("order", b"nonsense")
    async with Proxy(rabbitmq_url) as proxy:
        async with engine.begin() as connection:
            # The batch can start, but not finish.
            await connection.execute(text("LOCK TABLE orders IN EXCLUSIVE MODE"))
            killed = start_worker("intake", DAYBOOK_BROKER_URL=proxy.url)
            await wait_for_blocked_transaction(engine)
            proxy.stall()
        await wait_until(lambda: has_orders(engine, 1), what="a commit without an acknowledgement")
        killed.kill()
        await proxy.cut()

    async def is_requeued() -> bool:
        return await producer.depth("order") == 41

    await wait_until(is_requeued, what="all messages to be requeued")
    url = await wait_until_ready(start_worker("intake"))

    async def is_settled() -> bool:
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"{url}/metrics")).text
        lines = [line for line in metrics.splitlines() if "intake_messages_total{" in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines) == 41

    await wait_until(is_settled, what="an outcome of every message")
    found = await get_shop_state(engine)
    assert (found.orders, found.stock) == (40, {1: 960})
    assert found.dead_letters == {"kept": [("order", "malformed")]}


async def test_both_roles_run_and_stop_together(
    start_worker: StartWorker, producer: AmqpClient, engine: AsyncEngine
) -> None:
    worker = start_worker()
    url = await wait_until_ready(worker)
    await producer.send("order", order_message())
    await wait_until(lambda: has_orders(engine, 1))

    async with httpx.AsyncClient() as client:
        checks = (await client.get(f"{url}/readyz")).json()["checks"]
        metrics = (await client.get(f"{url}/metrics")).text
    worker.send(signal.SIGTERM)

    assert await wait_for_exit(worker) == 0
    assert checks == dict.fromkeys(("database", "timezone", "broker", "claims", "intake"), "ok")
    applied = 'daybook_intake_messages_total{outcome="applied",queue="order"} 1.0'
    assert applied in metrics
    assert await producer.count_intake_messages() == 0


async def test_a_stop_during_a_batch_finishes_the_batch_and_requeues_the_rest(
    start_worker: StartWorker, producer: AmqpClient, engine: AsyncEngine
) -> None:
    worker = start_worker("intake")
    await wait_until_ready(worker)
    async with engine.begin() as connection:
        await connection.execute(text("LOCK TABLE orders IN EXCLUSIVE MODE"))
        for _ in range(30):
            await producer.send("order", order_message())
        await wait_for_blocked_transaction(engine)
        worker.send(signal.SIGTERM)
        await wait_for_log_entry(worker, "draining")
    assert await wait_for_exit(worker) == 0

    processed = (await get_shop_state(engine)).orders
    assert processed >= 1

    async def is_requeued() -> bool:
        return await producer.depth("order") == 30 - processed

    await wait_until(is_requeued, what="the rest to be requeued")


async def test_a_worker_whose_queue_has_other_arguments_is_alive_but_not_ready(
    start_worker: StartWorker, producer: AmqpClient
) -> None:
    await producer.channel.queue_delete("product")
    await producer.channel.declare_queue("product", durable=True)
    try:
        worker = start_worker("intake")
        url = await wait_for_health_url(worker)

        async def is_explained() -> bool:
            async with httpx.AsyncClient() as client:
                response = await client.get(f"{url}/readyz")
            return response.status_code == 503 and "'product' exists" in response.text

        await wait_until(is_explained, what="the reason in the readiness check")
        assert worker.running
        assert "docs/intake.md" in worker.read_log()
    finally:
        await producer.channel.queue_delete("product")


async def test_a_worker_without_rabbitmq_builds_reports_and_disables_the_intake(
    start_worker: StartWorker, redis_url: str
) -> None:
    worker = start_worker(DAYBOOK_BROKER_URL=redis_url)
    url = await wait_until_ready(worker)

    async with httpx.AsyncClient() as client:
        checks = (await client.get(f"{url}/readyz")).json()["checks"]

    assert checks.keys() == {"database", "timezone", "broker", "claims"}
    assert "intake disabled" in worker.read_log()
