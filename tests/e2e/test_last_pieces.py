"""Are the last pieces sold once, to buyers who come by REST and by queue at the same moment?"""

import asyncio

import httpx
import pytest
from sqlalchemy import text

from tests.e2e.stack import Stack
from tests.support.messages import Books, books_seen, order
from tests.support.producer import Producer
from tests.support.waiting import until

pytestmark = pytest.mark.rabbitmq

BUYERS, PIECES = 50, 10


async def test_fifty_buyers_of_ten_pieces(stack: Stack) -> None:
    async with stack.sessions.begin() as session:
        await session.execute(text("UPDATE products SET stock_quantity = :n"), {"n": PIECES})
    (_, url), _ = await asyncio.gather(
        stack.api(), stack.worker("intake", DAYBOOK_INTAKE_BATCH="5")
    )
    async with (
        Producer.connected(stack.rabbitmq.url) as producer,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        bought = {"Content-Type": "application/json"}
        sending = [asyncio.create_task(producer.send("order", order())) for _ in range(25)]
        answers = await asyncio.gather(
            *(client.post("/orders", content=order(), headers=bought) for _ in range(25))
        )
        await asyncio.gather(*sending)

        async def decided() -> Books | None:
            async with stack.sessions() as session:
                found = await books_seen(await session.connection())
            refused = sum(answer.status_code == 409 for answer in answers)
            letters = len(found.letters.get("kept", []))
            return found if found.orders + refused + letters == BUYERS else None

        found = await until(decided, what="an answer to every buyer")

    assert found is not None
    assert (found.orders, found.stock) == (PIECES, {1: 0})
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert set(found.letters["kept"]) == {("order", "out_of_stock")}
