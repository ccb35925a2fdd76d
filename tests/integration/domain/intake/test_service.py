"""Outcomes of the messages of a batch, deduplication and concurrent batches."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.intake import deduplication, service
from daybook_domain.intake.errors import DeliveriesLost
from daybook_domain.intake.parsing import DEAD_LETTER_QUEUE, parse_delivery
from daybook_domain.intake.service import Batch, MessageOutcome
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.intake.conftest import ConsumeBatch
from tests.support.factories.dead_letters import RETRY_IMMEDIATELY
from tests.support.factories.messages import (
    order_message,
    order_update_message,
    product_message,
    product_update_message,
)
from tests.support.oracles.shop_state import get_shop_state
from tests.support.postgres import wait_for_blocked_transaction

APPLIED, DUPLICATE = MessageOutcome.APPLIED, MessageOutcome.DUPLICATE
WAITING, KEPT = MessageOutcome.WAITING, MessageOutcome.KEPT


async def test_a_batch_of_all_kinds_takes_effect_in_the_order_of_kinds(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    outcomes = await consume(
        parse_delivery("order_update", order_update_message(1, status="paid")),
        parse_delivery("order", order_message(product=2, quantity=3)),
        parse_delivery("product_update", product_update_message(2, stock_quantity=5)),
        parse_delivery("product", product_message(stock=1)),
    )

    assert outcomes == [APPLIED] * 4
    found = await get_shop_state(engine)
    assert (found.sold, found.stock) == ({2: 3}, {1: 1000, 2: 2})


async def test_an_invalid_message_is_kept_and_does_not_affect_the_others(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO users (username, email) VALUES ('bob', 'bob@example.com')")
        )

    outcomes = await consume(
        parse_delivery("order", b"nonsense"),
        parse_delivery("order", order_message(quantity=1001)),
        parse_delivery("order", order_message(user=2)),
        parse_delivery("order_update", order_update_message(1, status="delivered")),
        parse_delivery("order", order_message()),
    )

    assert outcomes == [KEPT, KEPT, KEPT, KEPT, APPLIED]
    found = await get_shop_state(engine)
    assert found.stock == {1: 999}
    assert found.dead_letters["kept"] == [
        ("order", "malformed"),
        ("order", "out_of_stock"),
        ("order", "foreign_address"),
        ("order_update", "status_forbids"),
    ]


async def test_a_dead_letter_has_the_body_the_headers_and_a_reason(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    body = b"\x00\xff not JSON"
    headers = {"n\0te": b"\xff", "when": [1, None, float("nan"), {"deep": "\0"}]}

    await consume(parse_delivery("product", body, message_id="m\0", headers=headers))

    async with engine.connect() as connection:
        (dead_letter,) = (await connection.execute(text("SELECT * FROM dead_letters"))).all()
    assert (dead_letter.queue, dead_letter.body, dead_letter.message_id) == (
        "product",
        body,
        "m\ufffd",
    )
    assert dead_letter.headers == {
        "n\ufffdte": "/w==",
        "when": [1, None, "nan", {"deep": "\ufffd"}],
    }
    assert dead_letter.reason
    assert dead_letter.attempts == 1
    assert dead_letter.first_failed_at == dead_letter.last_failed_at


async def test_an_order_with_an_external_id_is_placed_once(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    again = parse_delivery("order", order_message(external_id="a", quantity=2))

    assert await consume(again, parse_delivery("order", order_message()), again) == [
        APPLIED,
        APPLIED,
        DUPLICATE,
    ]
    assert await consume(again) == [DUPLICATE]
    other = parse_delivery("order", order_message(external_id="a", quantity=3))
    assert await consume(other) == [KEPT]

    found = await get_shop_state(engine)
    assert (found.sold, found.dead_letters) == ({1: 3}, {"kept": [("order", "external_id_taken")]})


async def test_a_message_id_is_applied_once_per_queue(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    first = parse_delivery("product", product_message(), message_id="7")

    assert await consume(first, first) == [APPLIED, DUPLICATE]
    assert await consume(first) == [DUPLICATE]
    assert await consume(parse_delivery("product", product_message(stock=11), message_id="7")) == [
        KEPT
    ]
    assert await consume(parse_delivery("order", order_message(), message_id="7")) == [APPLIED]

    found = await get_shop_state(engine)
    assert len(found.stock) == 2
    assert found.dead_letters == {"kept": [("product", "message_id_reused")]}


async def test_two_messages_without_id_and_with_the_same_body_are_both_applied(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    assert (
        await consume(
            parse_delivery("order", order_message()), parse_delivery("order", order_message())
        )
        == [APPLIED] * 2
    )
    assert (await get_shop_state(engine)).orders == 2


async def test_a_redelivered_message_without_id_is_applied_unless_it_was_committed(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    fresh = parse_delivery("order", order_message())
    again = parse_delivery("order", order_message(), redelivered=True)
    await consume(fresh, fresh)  # Its acknowledgement is never confirmed: the worker was killed.

    assert await consume(again, again, again) == [DUPLICATE, DUPLICATE, APPLIED]
    # That acknowledgement is not confirmed either, so all three may be redelivered again.
    assert await consume(again, again, again, again) == [DUPLICATE] * 3 + [APPLIED]
    assert (await get_shop_state(engine)).orders == 4


async def test_a_redelivered_dead_letter_is_stored_once(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    await consume(parse_delivery("order", b"nonsense"))

    assert await consume(parse_delivery("order", b"nonsense", redelivered=True)) == [DUPLICATE]
    assert len((await get_shop_state(engine)).dead_letters["kept"]) == 1


async def test_a_deleted_receipt_no_longer_deduplicates(
    consume: ConsumeBatch, sessions: Sessions, engine: AsyncEngine
) -> None:
    consumer = uuid4()
    await consume(parse_delivery("order", order_message()), consumer=consumer, number=1)
    await consume(parse_delivery("order", order_message(quantity=2)), consumer=consumer, number=2)
    async with sessions.begin() as session:
        await deduplication.delete_receipt(session, consumer, number=1)

    assert await consume(parse_delivery("order", order_message(), redelivered=True)) == [APPLIED]
    assert await consume(parse_delivery("order", order_message(quantity=2), redelivered=True)) == [
        DUPLICATE
    ]


async def test_a_batch_whose_commit_was_interrupted_is_not_committed_twice(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    consumer = uuid4()
    assert await consume(parse_delivery("order", order_message()), consumer=consumer, number=1) == [
        APPLIED
    ]

    assert (
        await consume(parse_delivery("order", order_message()), consumer=consumer, number=1) is None
    )
    assert (await get_shop_state(engine)).orders == 1


async def test_a_redelivered_message_waits_for_concurrent_batches(
    consume: ConsumeBatch, sessions: Sessions, engine: AsyncEngine
) -> None:
    batch = Batch(uuid4(), 1, [parse_delivery("order", order_message())])
    async with sessions.begin() as session:
        await service.consume_batch(
            session, batch, retry_policy=RETRY_IMMEDIATELY, still_valid=lambda: True
        )
        second = asyncio.create_task(
            consume(parse_delivery("order", order_message(), redelivered=True))
        )
        await wait_for_blocked_transaction(engine)

    assert await second == [DUPLICATE]
    assert (await get_shop_state(engine)).orders == 1


async def test_a_worker_whose_deliveries_may_be_lost_commits_nothing(
    sessions: Sessions, shop: None, engine: AsyncEngine
) -> None:
    batch = Batch(uuid4(), 1, [parse_delivery("order", order_message())])

    with pytest.raises(DeliveriesLost):
        async with sessions.begin() as session:
            await service.consume_batch(
                session, batch, retry_policy=RETRY_IMMEDIATELY, still_valid=lambda: False
            )

    assert (await get_shop_state(engine)).orders == 0


async def test_an_unexpected_error_affects_only_its_message(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    async with _rejecting_inserts(engine, "products", "NEW.name = 'cursed'"):
        outcomes = await consume(
            *[parse_delivery("product", product_message(name=f"p{n}")) for n in range(7)],
            parse_delivery("product", product_message(name="cursed")),
            *[parse_delivery("order", order_message()) for _ in range(5)],
        )

    assert outcomes == [APPLIED] * 7 + [KEPT] + [APPLIED] * 5
    found = await get_shop_state(engine)
    assert found.dead_letters == {"kept": [("product", "unforeseen")]}
    assert (len(found.stock), found.orders) == (8, 5)


async def test_an_outage_is_raised_and_stores_no_dead_letter(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    async with _rejecting_inserts(engine, "products", "true", sqlstate="57P01"):
        with pytest.raises(DBAPIError):
            await consume(parse_delivery("product", product_message()))

    assert (await get_shop_state(engine)).dead_letters == {}


async def test_a_message_dead_lettered_by_rabbitmq_is_stored_once(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    death = {"queue": "order", "reason": "delivery_limit", "count": 1, "time": None}
    dead_letter = parse_delivery(DEAD_LETTER_QUEUE, order_message(), headers={"x-death": [death]})

    assert await consume(dead_letter) == [KEPT]
    assert await consume(dead_letter) == [DUPLICATE]
    assert (await get_shop_state(engine)).dead_letters == {"kept": [("order", "delivery_limit")]}


async def test_a_committed_message_dead_lettered_by_rabbitmq_is_a_duplicate(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    death = {"queue": "order", "reason": "delivery_limit", "count": 1, "time": None}
    await consume(
        parse_delivery("order", order_message()),
        parse_delivery("order", order_message(), message_id="7"),
    )

    outcomes = await consume(
        parse_delivery(DEAD_LETTER_QUEUE, order_message(), headers={"x-death": [death]}),
        parse_delivery(
            DEAD_LETTER_QUEUE, order_message(), headers={"x-death": [death]}, message_id="7"
        ),
    )

    assert outcomes == [DUPLICATE, DUPLICATE]
    assert (await get_shop_state(engine)).dead_letters == {}


@pytest.mark.parametrize("headers", [{}, {"x-death": []}, {"x-death": "?"}, {"x-death": [{}]}])
async def test_a_message_published_to_the_dead_letter_queue_is_kept(
    consume: ConsumeBatch, engine: AsyncEngine, headers: dict[str, object]
) -> None:
    assert await consume(parse_delivery(DEAD_LETTER_QUEUE, b"?", headers=headers)) == [KEPT]
    assert (await get_shop_state(engine)).dead_letters == {
        "kept": [(DEAD_LETTER_QUEUE, "delivery_limit")]
    }


async def test_concurrent_batches_of_the_same_ids_and_products_lose_nothing(
    consume: ConsumeBatch, engine: AsyncEngine
) -> None:
    deliveries = [
        *(parse_delivery("order", order_message(quantity=1), message_id=str(n)) for n in range(20)),
        *(
            parse_delivery("order", order_message(quantity=1, external_id=str(n)))
            for n in range(20)
        ),
        *(
            parse_delivery("product_update", product_update_message(1, name=str(n)))
            for n in range(3)
        ),
    ]

    outcomes = await asyncio.gather(
        *(consume(*(deliveries if n % 2 else reversed(deliveries))) for n in range(6))
    )

    assert sum((each or []).count(APPLIED) for each in outcomes) == 40 + 6 * 3
    found = await get_shop_state(engine)
    assert (found.orders, found.stock) == (40, {1: 960})


@asynccontextmanager
async def _rejecting_inserts(
    engine: AsyncEngine, table: str, condition: str, *, sqlstate: str = "XX001"
) -> AsyncIterator[None]:
    """Make Postgres reject inserts that match a condition, with an unexpected error."""
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                f" RAISE EXCEPTION 'cursed' USING ERRCODE = '{sqlstate}'; END $$"
            )
        )
        await connection.execute(
            text(
                f"CREATE TRIGGER refuse BEFORE INSERT ON {table}"
                f" FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()"
            )
        )
    try:
        yield
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("DROP FUNCTION refuse CASCADE"))
