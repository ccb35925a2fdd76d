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
from daybook_platform.postgres.engine import Sessions
from tests.integration.domain.intake.conftest import Retry, Take
from tests.support.locks import somebody_waits
from tests.support.messages import books, order, order_update
from tests.support.runs import everything
from tests.support.shop import build

APPLIED, WAITING = MessageOutcome.APPLIED, MessageOutcome.WAITING
PAID = parse_delivery("order_update", order_update(1, status="paid"))
NO_PATIENCE = RetryPolicy(first=timedelta(0), longest=timedelta(0), total=timedelta(0))


def two_pieces_of(order_id: int) -> Delivery:
    items = [{"product_id": 1, "quantity": 2}]
    return parse_delivery("order_update", order_update(order_id, items=items))


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
    take: Take, retry: Retry, engine: AsyncEngine
) -> None:
    await take(parse_delivery("order", order()))

    async with running_build(engine):
        outcomes = await take(two_pieces_of(1), parse_delivery("order", order(quantity=5)))
        assert outcomes == [WAITING, APPLIED]
        assert (await books(engine)).sold == {1: 6}
        assert await retry() == [WAITING]

    assert await retry() == [APPLIED]
    seen = await books(engine)
    assert (seen.sold, seen.stock) == ({1: 7}, {1: 993})


async def test_a_delayed_update_requests_a_rebuild_of_the_report_that_was_built(
    take: Take, retry: Retry, engine: AsyncEngine, sessions: Sessions
) -> None:
    await take(parse_delivery("order", order()))
    async with engine.connect() as connection:
        query = "SELECT (created_at AT TIME ZONE 'UTC')::date FROM orders"
        day = (await connection.execute(text(query))).scalar_one()
    async with running_build(engine):
        await take(two_pieces_of(1))
    await build(engine, business_day(day, timezone="UTC"))

    assert await retry() == [APPLIED]

    assert day in [run.report_date for run in await everything(sessions) if run.reason]


async def test_an_update_is_not_given_up_while_a_build_delays_it(
    take: Take, retry: Retry, engine: AsyncEngine
) -> None:
    await take(parse_delivery("order", order()))

    async with running_build(engine):
        await take(two_pieces_of(1), retry_policy=NO_PATIENCE)
        assert await retry() == [WAITING]
        assert await retry() == [WAITING]

    assert await retry() == [APPLIED]


async def test_later_updates_wait_behind_one_that_a_build_delays(
    take: Take, retry: Retry, engine: AsyncEngine
) -> None:
    await take(parse_delivery("order", order()))

    async with running_build(engine):
        assert await take(two_pieces_of(1), PAID) == [WAITING, WAITING]

    assert await retry() == [APPLIED]
    assert await retry() == [APPLIED]
    assert (await books(engine)).letters == {
        "redriven": [("order_update", "report_building"), ("order_update", "postponed")]
    }


@pytest.mark.parametrize("update", [PAID, parse_delivery("order_update", order_update(1))])
async def test_an_update_without_items_does_not_wait_for_a_build(
    take: Take, engine: AsyncEngine, update: Delivery
) -> None:
    await take(parse_delivery("order", order()))

    async with running_build(engine):
        assert await take(update) == [APPLIED]


async def test_an_update_of_an_order_of_the_same_batch_does_not_wait_for_a_build(
    take: Take, retry: Retry, engine: AsyncEngine
) -> None:
    async with running_build(engine):
        outcomes = await take(parse_delivery("order", order()), two_pieces_of(1))
        assert outcomes == [APPLIED, WAITING]

    assert await retry() == [APPLIED]
    assert (await books(engine)).sold == {1: 2}


async def test_a_batch_and_a_request_that_change_orders_of_one_report_do_not_deadlock(
    take: Take, engine: AsyncEngine, sessions: Sessions
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO products (name, price, stock_quantity) VALUES ('pot', 9, 10)")
        )
    await take(parse_delivery("order", order()), parse_delivery("order", order(product=2)))
    async with engine.connect() as connection:
        query = "SELECT (created_at AT TIME ZONE 'UTC')::date FROM orders WHERE id = 1"
        day = (await connection.execute(text(query))).scalar_one()
    await build(engine, business_day(day, timezone="UTC"))

    async def request() -> None:
        async with sessions.begin() as session:
            items = (NewItem(1, 2), NewItem(2, 2))
            await service.change(session, 1, changes={"items": items})

    async with asyncio.TaskGroup() as tasks, engine.begin() as connection:
        await connection.execute(text("SELECT FROM products WHERE id = 1 FOR UPDATE"))
        # The request waits for product 1, and then needs product 2, which the batch locks.
        tasks.create_task(request())
        await somebody_waits(engine)
        items = [{"product_id": 2, "quantity": 3}]
        update = parse_delivery("order_update", order_update(2, items=items))
        async with asyncio.timeout(20):
            assert await take(update) == [APPLIED]

    assert (await books(engine)).sold == {1: 2, 2: 5}
