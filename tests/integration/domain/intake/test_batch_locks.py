"""Locks of a batch: taken in one order before any write, and released when its worker is silent."""

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from daybook_domain.intake import dead_letters
from daybook_domain.intake.parsing import Delivery, parse_delivery
from daybook_domain.intake.service import MessageOutcome
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.intake.conftest import ConsumeBatch
from tests.support.factories.messages import (
    order_message,
    order_update_message,
    product_message,
    product_update_message,
)
from tests.support.postgres import wait_for_blocked_transaction

APPLIED = MessageOutcome.APPLIED


async def execute_without_waiting(connection: AsyncConnection, statement: str) -> None:
    """Execute a statement that fails if it has to wait for a lock."""
    await connection.execute(text("SET LOCAL lock_timeout = '1ms'"))
    await connection.execute(text(statement))


@pytest.mark.parametrize(
    "updates",
    [
        [
            ("product_update", product_update_message(2, name="a")),
            ("product_update", product_update_message(1)),
        ],
        [
            ("order_update", order_update_message(2, status="cancelled")),
            ("order_update", order_update_message(1, status="cancelled")),
        ],
    ],
    ids=["products", "orders"],
)
async def test_a_batch_locks_its_products_in_order_whatever_the_order_of_its_messages(
    consume: ConsumeBatch, engine: AsyncEngine, updates: Sequence[tuple[str, bytes]]
) -> None:
    await consume(parse_delivery("product", product_message()))
    await consume(
        parse_delivery("order", order_message()), parse_delivery("order", order_message(product=2))
    )

    async with asyncio.TaskGroup() as tasks, engine.begin() as connection:
        await connection.execute(text("SELECT FROM products WHERE id = 1 FOR UPDATE"))
        batch = tasks.create_task(consume(*(parse_delivery(*update) for update in updates)))
        await wait_for_blocked_transaction(engine)
        # A batch that had locked product 2 first would deadlock with this transaction.
        await execute_without_waiting(connection, "SELECT FROM products WHERE id = 2 FOR UPDATE")

    assert batch.result() == [APPLIED] * 2


async def test_a_batch_inserts_message_ids_in_order(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    def delivery(message_id: str) -> Delivery:
        return parse_delivery("product", product_message(), message_id=message_id)

    insert = "INSERT INTO intake_messages (queue, message_id, digest) VALUES ('product', '{}', '')"
    async with asyncio.TaskGroup() as tasks, engine.connect() as connection:
        await connection.execute(text(insert.format("a")))
        batch = tasks.create_task(consume(delivery("b"), delivery("a")))
        await wait_for_blocked_transaction(engine)
        # A batch that had inserted b first would deadlock with this transaction.
        await execute_without_waiting(connection, insert.format("b"))
        await connection.rollback()

    assert batch.result() == [APPLIED] * 2


async def test_a_dead_letter_that_another_worker_claims_is_skipped(
    consume: ConsumeBatch, sessions: Sessions
) -> None:
    await consume(*(parse_delivery("order", order_message(product=9)) for _ in range(2)))

    async with sessions.begin() as first, sessions.begin() as second:
        await second.execute(text("SET LOCAL lock_timeout = '1ms'"))
        claims = [await dead_letters.claim_due(each, limit=1) for each in (first, second)]

    assert claims == [[1], [2]]
