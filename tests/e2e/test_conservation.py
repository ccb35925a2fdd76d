"""Message intake while workers and servers are killed: no message is lost or applied twice."""

import asyncio
import os
from collections.abc import Sequence
from random import Random

import pytest
from sqlalchemy import text

from tests.e2e.stack import Stack
from tests.support.amqp import AmqpClient
from tests.support.oracles.shop_state import ShopState, get_visible_shop_state
from tests.support.oracles.traffic import (
    ADDED_LATER,
    IN_STOCK,
    SOLD_OUT,
    TrafficMessage,
    format_expected_state,
    generate_traffic,
)
from tests.support.processes import Service
from tests.support.waiting import wait_until

MESSAGES = os.environ.get("DAYBOOK_TEST_CHAOS_MESSAGES")
"""Replaces the number of published messages."""

FEW, MANY = 1_000, 20_000

KILLS = 6
PUBLISH_BATCH = 100
STOCK = 1_000_000

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(120 + int(MESSAGES or MANY) // 20)]


@pytest.mark.parametrize("messages", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
async def test_each_published_message_is_applied_a_duplicate_or_a_dead_letter(
    stack: Stack, messages: int
) -> None:
    number = int(MESSAGES or messages)
    random = Random(number)
    expected = generate_traffic(number, seed=number)
    await _open_shop(stack)
    async with AmqpClient.connected(stack.rabbitmq.url) as producer:
        await producer.purge_intake_queues()
    workers = [await _start_worker(stack), await _start_worker(stack)]
    # RabbitMQ is not restarted during a publish: whether an unconfirmed message arrived is the
    # question of the producer, not of this test.
    publish_lock = asyncio.Lock()
    publishing = asyncio.create_task(_publish(stack, expected.messages, publish_lock))

    for kill in range(KILLS):
        applied = (kill + 1) * expected.applied // (KILLS + 2)
        await _wait_until_applied(stack, applied, seconds=60 + number / 100)
        workers.pop(random.randrange(len(workers))).kill()
        if kill == 1:
            await asyncio.to_thread(stack.postgres.stop)
            await asyncio.to_thread(stack.postgres.start)
        if kill == 3:
            async with publish_lock:
                await asyncio.to_thread(stack.rabbitmq.stop)
                await asyncio.to_thread(stack.rabbitmq.start)
        if kill == 4:
            await _add_product(stack, ADDED_LATER, stock=STOCK)
        workers.append(await _start_worker(stack))
    await publishing

    async def settled() -> bool:
        found = await _get_shop_state(stack)
        return (
            found.orders >= expected.applied
            and "waiting" not in found.dead_letters
            and len(found.dead_letters.get("kept", [])) >= expected.dead_letters.total()
            and await _total_depth(stack) == 0
        )

    await wait_until(settled, seconds=60 + number / 50, what=format_expected_state(expected))
    assert [await asyncio.to_thread(worker.stop) for worker in workers] == [0, 0]
    assert await _total_depth(stack) == 0
    expected.check(
        await _get_shop_state(stack), stock={IN_STOCK: STOCK, SOLD_OUT: 0, ADDED_LATER: STOCK}
    )


async def _start_worker(stack: Stack) -> Service:
    return await stack.start_worker("intake", DAYBOOK_INTAKE_BATCH="100")


async def _open_shop(stack: Stack) -> None:
    async with stack.sessions.begin() as session:
        await session.execute(text("UPDATE products SET stock_quantity = :stock"), {"stock": STOCK})
    await _add_product(stack, SOLD_OUT, stock=0)


async def _add_product(stack: Stack, product_id: int, *, stock: int) -> None:
    async with stack.sessions.begin() as session:
        await session.execute(
            text(
                "INSERT INTO products (id, name, price, stock_quantity)"
                " OVERRIDING SYSTEM VALUE VALUES (:id, 'late', 1, :stock)"
            ),
            {"id": product_id, "stock": stock},
        )


async def _publish(
    stack: Stack, messages: Sequence[TrafficMessage], publish_lock: asyncio.Lock
) -> None:
    """Publish all messages in batches, each over a new connection."""
    for first in range(0, len(messages), PUBLISH_BATCH):
        async with publish_lock, AmqpClient.connected(stack.rabbitmq.url) as producer:
            await asyncio.gather(
                *(
                    producer.send("order", message.body, **message.properties)
                    for message in messages[first : first + PUBLISH_BATCH]
                )
            )


async def _wait_until_applied(stack: Stack, orders: int, *, seconds: float) -> None:
    async def applied() -> bool:
        return (await _get_shop_state(stack)).orders >= orders

    await wait_until(applied, seconds=seconds, what=f"{orders} orders")


async def _get_shop_state(stack: Stack) -> ShopState:
    async with stack.sessions() as session:
        return await get_visible_shop_state(await session.connection())


async def _total_depth(stack: Stack) -> int:
    async with AmqpClient.connected(stack.rabbitmq.url) as producer:
        return await producer.count_intake_messages()
