"""Retries of dead letters: missing rows, order of updates, claims and crashed workers."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.intake import dead_letters
from daybook_domain.intake.dead_letters import RetryPolicy
from daybook_domain.intake.parsing import parse_delivery
from daybook_domain.intake.service import MessageOutcome
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.intake.conftest import ConsumeBatch, Retry
from tests.support.factories.messages import (
    order_message,
    order_update_message,
    product_message,
    product_update_message,
)
from tests.support.oracles.shop_state import get_shop_state

SLOW_RETRIES = RetryPolicy(
    first=timedelta(hours=1), longest=timedelta(hours=1), total=timedelta(hours=9)
)
NO_RETRIES = RetryPolicy(first=timedelta(0), longest=timedelta(0), total=timedelta(0))


async def status(engine: AsyncEngine, order_id: int) -> str:
    async with engine.connect() as connection:
        found = await connection.execute(
            text("SELECT status FROM orders WHERE id = :id"), {"id": order_id}
        )
        return str(found.scalar_one())


@pytest.mark.parametrize(
    ("queue", "body", "missing"),
    [
        ("order", order_message(product=2), "product"),
        ("order", order_message(user=2, address=2), "user"),
        ("order", order_message(address=2), "address"),
        ("product_update", product_update_message(2, name="new"), "product"),
        ("order_update", order_update_message(1, status="paid"), "order"),
    ],
)
async def test_a_message_is_applied_once_the_missing_row_exists(
    consume: ConsumeBatch, retry: Retry, engine: AsyncEngine, queue: str, body: bytes, missing: str
) -> None:
    assert await consume(parse_delivery(queue, body)) == [MessageOutcome.WAITING]
    assert await retry() == [MessageOutcome.WAITING]

    if missing in {"product", "order"}:
        await consume(
            parse_delivery(missing, product_message() if missing == "product" else order_message())
        )
    else:
        await _add_user_or_address(engine, missing)
    assert await retry() == [MessageOutcome.APPLIED]

    assert list((await get_shop_state(engine)).dead_letters) == ["redriven"]
    assert await retry() == []


async def test_a_created_row_makes_the_dead_letters_due_that_wait_for_it(
    consume: ConsumeBatch, retry: Retry, engine: AsyncEngine
) -> None:
    await consume(
        parse_delivery("order", order_message(product=2)),
        parse_delivery("order", order_message(product=3)),
        retry_policy=SLOW_RETRIES,
    )
    assert await retry() == []

    await consume(parse_delivery("product", product_message()))

    assert await retry() == [MessageOutcome.APPLIED]
    assert (await get_shop_state(engine)).dead_letters.keys() == {"redriven", "waiting"}


async def test_a_dead_letter_whose_row_stays_missing_is_kept_with_the_reason(
    consume: ConsumeBatch, retry: Retry, engine: AsyncEngine
) -> None:
    await consume(parse_delivery("order", order_message(product=99)), retry_policy=NO_RETRIES)

    assert await retry() == [MessageOutcome.KEPT]
    assert (await get_shop_state(engine)).dead_letters == {"kept": [("order", "unknown_reference")]}
    assert await retry() == []


async def test_waiting_updates_of_one_order_are_applied_in_order(
    consume: ConsumeBatch, retry: Retry, engine: AsyncEngine
) -> None:
    paid, shipped = (
        parse_delivery("order_update", order_update_message(1, status=name))
        for name in ("paid", "shipped")
    )
    assert await consume(paid, shipped, retry_policy=SLOW_RETRIES) == [MessageOutcome.WAITING] * 2
    await consume(parse_delivery("order", order_message()))
    delivered = parse_delivery("order_update", order_update_message(1, status="delivered"))

    assert await consume(delivered) == [MessageOutcome.WAITING], (
        "it must not overtake the two before it"
    )
    for _ in range(3):
        assert await retry() == [MessageOutcome.APPLIED]

    assert await status(engine, 1) == "delivered"


async def test_concurrent_workers_retry_each_dead_letter_once(
    consume: ConsumeBatch, retry: Retry, engine: AsyncEngine
) -> None:
    await consume(*(parse_delivery("order", order_message(product=2)) for _ in range(20)))
    await consume(parse_delivery("product", product_message(stock=100)))

    outcomes = await asyncio.gather(retry(), retry(), retry())

    assert [outcome for each in outcomes for outcome in each] == [MessageOutcome.APPLIED] * 20
    assert (await get_shop_state(engine)).sold == {2: 20}


async def test_a_dead_letter_that_crashes_workers_is_claimed_alone_and_then_kept(
    consume: ConsumeBatch, retry: Retry, sessions: Sessions, engine: AsyncEngine
) -> None:
    await consume(parse_delivery("order", order_message(product=2)))
    for _ in range(dead_letters.MAX_STARTED_ATTEMPTS):
        async with sessions.begin() as session:
            assert await dead_letters.claim_due(session, limit=1) == [1]
        await _expire_lease(engine)  # The worker was killed while it was at it.

    await consume(parse_delivery("order", order_message(product=2)))
    await consume(parse_delivery("product", product_message()))

    assert await retry() == [MessageOutcome.APPLIED], (
        "dead letters without failed attempts are claimed first"
    )
    assert await retry() == [MessageOutcome.KEPT]

    found = (await get_shop_state(engine)).dead_letters
    assert found["kept"] == [("order", "delivery_limit")]


async def _expire_lease(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE dead_letters SET available_at = now()"))


async def _add_user_or_address(engine: AsyncEngine, what: str) -> None:
    async with engine.begin() as connection:
        if what == "user":
            await connection.execute(
                text("INSERT INTO users (username, email) VALUES ('bob', 'bob@example.com')")
            )
        await connection.execute(
            text(
                "INSERT INTO addresses (user_id, street, city, zip_code, country, is_primary)"
                " SELECT max(id), 'Quay 2', 'Bergen', '5003', 'NO', false FROM users"
            )
        )
