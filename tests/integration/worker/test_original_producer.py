"""The plain producer of the system that Daybook replaced: its bodies, sent unchanged."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aio_pika
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.reports.business_day import business_day
from tests.integration.worker.intake import running_intake
from tests.support.amqp import AmqpClient
from tests.support.factories.reports import build_report, get_quantity_by_order
from tests.support.oracles.shop_state import get_shop_state
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq

Publish = Callable[..., Awaitable[None]]


@pytest.fixture
async def publish(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str
) -> AsyncIterator[Publish]:
    """Return a function that publishes bodies as any aio-pika producer does; the intake runs."""
    connection = await aio_pika.connect(rabbitmq_url)
    channel = await connection.channel()

    async def publish(queue: str, *bodies: dict[str, Any]) -> None:
        for body in bodies:
            message = aio_pika.Message(
                json.dumps(body).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            )
            await channel.default_exchange.publish(message, routing_key=queue)

    async with running_intake(postgres_url, rabbitmq_url):
        yield publish
    await connection.close()


async def rows(engine: AsyncEngine, statement: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(statement))]


async def until_rows(engine: AsyncEngine, statement: str, expected: list[tuple[Any, ...]]) -> None:
    async def is_expected() -> bool:
        found = await rows(engine, statement)
        letters = (await get_shop_state(engine)).dead_letters
        assert not letters, await rows(engine, "SELECT reason FROM dead_letters")
        return found == expected

    await wait_until(is_expected, what=f"{expected} from {statement}")


def order_body(*quantities: int, **more: Any) -> dict[str, Any]:
    items = [{"product_id": 1, "quantity": quantity} for quantity in quantities]
    return {"user_id": 1, "delivery_address_id": 1, "items": items} | more


async def test_three_orders_are_counted_in_the_report_of_today(
    publish: Publish, engine: AsyncEngine
) -> None:
    await publish("order", *(order_body(n, status="pending") for n in (2, 3, 4)))

    await until_rows(engine, "SELECT count(*) FROM orders", [(3,)])
    counts: dict[int, int] = {}
    # One date, unless midnight passes during the test.
    for (placed_on,) in await rows(
        engine, "SELECT DISTINCT (created_at AT TIME ZONE 'UTC')::date FROM orders"
    ):
        await build_report(engine, business_day(placed_on, timezone="UTC"))
        counts |= await get_quantity_by_order(engine, placed_on)

    assert [counts[order_id] for order_id in (1, 2, 3)] == [2, 3, 4]


@pytest.mark.parametrize(
    ("more", "status"),
    [({}, "pending"), ({"status": None}, "pending"), ({"status": "paid"}, "paid")],
)
async def test_an_order_has_the_status_that_it_was_created_with(
    publish: Publish, engine: AsyncEngine, more: dict[str, Any], status: str
) -> None:
    await publish("order", order_body(1, external_id=None, **more))

    await until_rows(engine, "SELECT status FROM orders", [(status,)])


@pytest.mark.parametrize(
    ("more", "stored"),
    [
        ({}, (None, 0)),
        ({"description": None, "stock_quantity": None}, (None, 0)),
        ({"description": "black", "stock_quantity": 7}, ("black", 7)),
    ],
)
async def test_optional_fields_of_a_product_may_be_present_absent_or_null(
    publish: Publish, engine: AsyncEngine, more: dict[str, Any], stored: tuple[Any, ...]
) -> None:
    await publish("product", {"name": "pot", "price": 9.9} | more)

    query = "SELECT description, stock_quantity FROM products WHERE id = 2"
    await until_rows(engine, query, [stored])


async def test_null_leaves_a_field_of_a_product_unchanged(
    publish: Publish, engine: AsyncEngine
) -> None:
    nothing = dict.fromkeys(("name", "description", "price", "stock_quantity"))
    await publish("product", {"name": "pot", "description": "black", "price": 9.9})
    await publish(
        "product_update",
        {"product_id": 2, "product_data": nothing},
        {"product_id": 2, "product_data": nothing | {"price": 10.5}},
        {"product_id": 2, "product_data": {"stock_quantity": 3}},
    )

    query = "SELECT name, description, price::text, stock_quantity FROM products WHERE id = 2"
    await until_rows(engine, query, [("pot", "black", "10.50", 3)])


async def test_null_leaves_a_field_of_an_order_unchanged(
    publish: Publish, engine: AsyncEngine
) -> None:
    nothing = dict.fromkeys(("status", "delivery_address_id", "items"))
    await publish("order", order_body(2))
    await publish(
        "order_update",
        {"order_id": 1, "order_data": nothing},
        {"order_id": 1, "order_data": nothing | {"status": "completed"}},
    )

    query = (
        "SELECT status, delivery_address_id, quantity FROM orders"
        " JOIN order_items ON order_id = orders.id"
    )
    await until_rows(engine, query, [("completed", 1, 2)])
