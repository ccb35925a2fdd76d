"""Updates of orders whose report is being built, or waits for a rebuild."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.advisory_locks import REPORT_DATE, date_key
from daybook_domain.intake.dead_letters import RetryPolicy
from daybook_domain.intake.parsing import Delivery, parse_delivery
from daybook_domain.intake.service import MessageOutcome
from daybook_domain.orders import service
from daybook_domain.orders.order_validation import NewItem
from daybook_domain.reports.business_day import business_day
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.intake.conftest import ConsumeBatch, Retry
from tests.support.factories.messages import order_message, order_update_message
from tests.support.factories.reports import build_report
from tests.support.factories.runs import list_all_runs
from tests.support.oracles.shop_state import get_shop_state
from tests.support.postgres import wait_for_blocked_transaction

APPLIED, WAITING = MessageOutcome.APPLIED, MessageOutcome.WAITING
PAID = parse_delivery("order_update", order_update_message(1, status="paid"))
NO_PATIENCE = RetryPolicy(first=timedelta(0), longest=timedelta(0), total=timedelta(0))


def two_pieces_of(order_id: int) -> Delivery:
    items = [{"product_id": 1, "quantity": 2}]
    return parse_delivery("order_update", order_update_message(order_id, items=items))


@asynccontextmanager
async def running_build(engine: AsyncEngine) -> AsyncIterator[None]:
    """Hold the lock of a build of the date of order 1, or of today if there is none."""
    async with engine.begin() as connection:
        query = "SELECT (coalesce(min(created_at), now()) AT TIME ZONE 'UTC')::date FROM orders"
        day = (await connection.execute(text(query))).scalar_one()
        await connection.execute(
            text("SELECT pg_advisory_xact_lock(:lock_class, :key)"),
            {"lock_class": REPORT_DATE, "key": date_key(day)},
        )
        # An intake that waits for the build never gets an answer; the test fails instead.
        async with asyncio.timeout(20):
            yield


async def test_a_sale_does_not_wait_for_an_update_that_a_build_delays(
    consume: ConsumeBatch, retry: Retry, engine: AsyncEngine
) -> None:
    await consume(parse_delivery("order", order_message()))

    async with running_build(engine):
        outcomes = await consume(
            two_pieces_of(1), parse_delivery("order", order_message(quantity=5))
        )
        assert outcomes == [WAITING, APPLIED]
        assert (await get_shop_state(engine)).sold == {1: 6}
        assert await retry() == [WAITING]

    assert await retry() == [APPLIED]
    seen = await get_shop_state(engine)
    assert (seen.sold, seen.stock) == ({1: 7}, {1: 993})


async def test_a_delayed_update_requests_a_rebuild_of_the_report_that_was_built(
    consume: ConsumeBatch, retry: Retry, engine: AsyncEngine, sessions: Sessions
) -> None:
    await consume(parse_delivery("order", order_message()))
    async with engine.connect() as connection:
        query = "SELECT (created_at AT TIME ZONE 'UTC')::date FROM orders"
        day = (await connection.execute(text(query))).scalar_one()
    async with running_build(engine):
        await consume(two_pieces_of(1))
    await build_report(engine, business_day(day, timezone="UTC"))

    assert await retry() == [APPLIED]

    assert day in [run.report_date for run in await list_all_runs(sessions) if run.reason]


async def test_an_update_is_not_given_up_while_a_build_delays_it(
    consume: ConsumeBatch, retry: Retry, engine: AsyncEngine
) -> None:
    await consume(parse_delivery("order", order_message()))

    async with running_build(engine):
        await consume(two_pieces_of(1), retry_policy=NO_PATIENCE)
        assert await retry() == [WAITING]
        assert await retry() == [WAITING]

    assert await retry() == [APPLIED]


async def test_later_updates_wait_behind_one_that_a_build_delays(
    consume: ConsumeBatch, retry: Retry, engine: AsyncEngine
) -> None:
    await consume(parse_delivery("order", order_message()))

    async with running_build(engine):
        assert await consume(two_pieces_of(1), PAID) == [WAITING, WAITING]

    assert await retry() == [APPLIED]
    assert await retry() == [APPLIED]
    assert (await get_shop_state(engine)).dead_letters == {
        "redriven": [("order_update", "report_building"), ("order_update", "postponed")]
    }


@pytest.mark.parametrize("update", [PAID, parse_delivery("order_update", order_update_message(1))])
async def test_an_update_without_items_does_not_wait_for_a_build(
    consume: ConsumeBatch, engine: AsyncEngine, update: Delivery
) -> None:
    await consume(parse_delivery("order", order_message()))

    async with running_build(engine):
        assert await consume(update) == [APPLIED]


async def test_an_update_of_an_order_of_the_same_batch_does_not_wait_for_a_build(
    consume: ConsumeBatch, retry: Retry, engine: AsyncEngine
) -> None:
    async with running_build(engine):
        outcomes = await consume(parse_delivery("order", order_message()), two_pieces_of(1))
        assert outcomes == [APPLIED, WAITING]

    assert await retry() == [APPLIED]
    assert (await get_shop_state(engine)).sold == {1: 2}


async def test_a_batch_and_a_request_that_change_orders_of_one_report_do_not_deadlock(
    consume: ConsumeBatch, engine: AsyncEngine, sessions: Sessions
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO products (name, price, stock_quantity) VALUES ('pot', 9, 10)")
        )
    await consume(
        parse_delivery("order", order_message()), parse_delivery("order", order_message(product=2))
    )
    async with engine.connect() as connection:
        query = "SELECT (created_at AT TIME ZONE 'UTC')::date FROM orders WHERE id = 1"
        day = (await connection.execute(text(query))).scalar_one()
    await build_report(engine, business_day(day, timezone="UTC"))

    async def request() -> None:
        async with sessions.begin() as session:
            items = (NewItem(1, 2), NewItem(2, 2))
            await service.change(session, 1, changes={"items": items})

    async with asyncio.TaskGroup() as tasks, engine.begin() as connection:
        await connection.execute(text("SELECT FROM products WHERE id = 1 FOR UPDATE"))
        # The request waits for product 1, and then needs product 2, which the batch locks.
        tasks.create_task(request())
        await wait_for_blocked_transaction(engine)
        items = [{"product_id": 2, "quantity": 3}]
        update = parse_delivery("order_update", order_update_message(2, items=items))
        async with asyncio.timeout(20):
            assert await consume(update) == [APPLIED]

    assert (await get_shop_state(engine)).sold == {1: 2, 2: 5}
