"""The last pieces of a product, ordered over REST and RabbitMQ at the same time."""

import asyncio

import httpx
import pytest
from sqlalchemy import text

from tests.e2e.stack import Stack
from tests.support.amqp import AmqpClient
from tests.support.factories.messages import order_message
from tests.support.oracles.shop_state import ShopState, get_visible_shop_state
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq

BUYERS, PIECES = 50, 10


async def test_ten_pieces_are_sold_to_exactly_ten_of_fifty_concurrent_buyers(stack: Stack) -> None:
    async with stack.sessions.begin() as session:
        await session.execute(text("UPDATE products SET stock_quantity = :n"), {"n": PIECES})
    (_, url), _ = await asyncio.gather(
        stack.start_api(), stack.start_worker("intake", DAYBOOK_INTAKE_BATCH="5")
    )
    async with (
        AmqpClient.connected(stack.rabbitmq.url) as producer,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        headers = {"Content-Type": "application/json"}
        publishing = [
            asyncio.create_task(producer.send("order", order_message())) for _ in range(25)
        ]
        responses = await asyncio.gather(
            *(client.post("/orders", content=order_message(), headers=headers) for _ in range(25))
        )
        await asyncio.gather(*publishing)

        async def decided() -> ShopState | None:
            async with stack.sessions() as session:
                found = await get_visible_shop_state(await session.connection())
            refused = sum(response.status_code == 409 for response in responses)
            dead_letters = len(found.dead_letters.get("kept", []))
            return found if found.orders + refused + dead_letters == BUYERS else None

        found = await wait_until(decided, what="a decision for every buyer")

    assert found is not None
    assert (found.orders, found.stock) == (PIECES, {1: 0})
    assert {response.status_code for response in responses} <= {201, 409}
    assert set(found.dead_letters["kept"]) == {("order", "out_of_stock")}
