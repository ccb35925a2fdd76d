"""Triggers of migration 0002, which prevent the deletion of reported orders."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from daybook_domain.advisory_locks import REPORT_DATE, date_key
from daybook_domain.runs.dispatch_queue import DispatchItem
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import DAY, create_pending_run, list_all_runs, queue_run
from tests.support.factories.shop import create_order, reset_shop
from tests.support.postgres import wait_for_blocked_transaction

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
REBUILD = text("SET LOCAL daybook.delete_reported_orders = 'rebuild'")
LOCK = text(f"SELECT pg_advisory_xact_lock({REPORT_DATE}, {date_key(DAY)})")


@pytest.fixture(autouse=True)
async def shop(engine: AsyncEngine) -> None:
    """Create a shop without orders and reports."""
    await reset_shop(engine)


async def report(connection: AsyncConnection, order_id: int, *, day: date = DAY) -> None:
    await connection.execute(
        text("INSERT INTO reports (report_at, order_id, count_product) VALUES (:day, :id, 1)"),
        {"day": day, "id": order_id},
    )


async def reported_order(
    engine: AsyncEngine, *, created_at: datetime = NOON, day: date = DAY
) -> int:
    async with engine.begin() as connection:
        order_id = await create_order(connection, created_at=created_at)
        await report(connection, order_id, day=day)
    return order_id


async def execute(engine: AsyncEngine, statement: str, *, rebuild: bool = False) -> None:
    async with engine.begin() as connection:
        if rebuild:
            await connection.execute(REBUILD)
        await connection.execute(text(statement))


async def count(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        found: int = (await connection.execute(text("SELECT count(*) FROM orders"))).scalar_one()
    return found


FORBIDDEN = {
    "deleted": "DELETE FROM orders",
    "moved": "UPDATE orders SET created_at = created_at + interval '1 day'",
    "moved within its day": "UPDATE orders SET created_at = created_at + interval '1 second'",
}


@pytest.mark.parametrize("statement", FORBIDDEN.values(), ids=FORBIDDEN)
async def test_a_reported_order_cannot_be_deleted_and_the_error_has_a_hint(
    engine: AsyncEngine, statement: str
) -> None:
    order_id = await reported_order(engine)

    with pytest.raises(DBAPIError) as refusal:
        await execute(engine, statement)

    assert refusal.value.orig is not None
    error = refusal.value.orig.__cause__
    assert getattr(error, "sqlstate", None) == "23503"
    assert f"order {order_id} is counted by the report of 2026-03-01" in str(error)
    assert "SET LOCAL daybook.delete_reported_orders = 'rebuild'" in str(getattr(error, "hint", ""))
    assert await count(engine) == 1


@pytest.mark.parametrize("days", [-1, 0, 1])
async def test_a_report_is_found_for_every_time_zone(engine: AsyncEngine, days: int) -> None:
    await reported_order(engine, day=DAY + timedelta(days=days))

    with pytest.raises(DBAPIError, match="is counted by the report"):
        await execute(engine, "DELETE FROM orders")


@pytest.mark.parametrize("statement", FORBIDDEN.values(), ids=FORBIDDEN)
async def test_a_permitted_deletion_requests_a_rebuild_in_the_same_transaction(
    engine: AsyncEngine, sessions: Sessions, statement: str
) -> None:
    await reported_order(engine)
    async with engine.begin() as connection:
        await connection.execute(REBUILD)
        await connection.execute(text(statement))
        states = (await connection.scalars(text("SELECT state FROM report_runs"))).all()
        assert await list_all_runs(sessions) == []

    (run,) = await list_all_runs(sessions)
    assert states == ["pending"]
    assert (run.report_date, run.state, run.trigger) == (
        DAY,
        RunState.PENDING,
        RunTrigger.RECONCILE,
    )
    assert run.reason == "a counted order was deleted or moved"


async def test_the_permission_ends_with_its_transaction(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(REBUILD)
    await reported_order(engine)

    with pytest.raises(DBAPIError, match="is counted by the report"):
        await execute(engine, "DELETE FROM orders")


@pytest.mark.parametrize(
    ("make", "state"), [(create_pending_run, RunState.PENDING), (queue_run, RunState.QUEUED)]
)
async def test_a_deletion_joins_the_waiting_run(
    engine: AsyncEngine,
    sessions: Sessions,
    make: Callable[[Sessions], Awaitable[ReportRun | DispatchItem]],
    state: RunState,
) -> None:
    run = await make(sessions)
    await reported_order(engine)

    await execute(engine, "DELETE FROM orders", rebuild=True)

    (found,) = await list_all_runs(sessions)
    assert (found.id, found.state) == (run.id, state)


async def test_a_deletion_of_many_orders_requests_each_date_once(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    for k in range(6):
        hours = timedelta(hours=12 * k)
        await reported_order(engine, created_at=NOON + hours, day=(NOON + hours).date())

    with pytest.raises(DBAPIError, match="is counted by the report of 2026-03-01"):
        await execute(engine, "DELETE FROM orders")
    await execute(engine, "DELETE FROM orders", rebuild=True)

    assert await count(engine) == 0
    assert [run.report_date for run in await list_all_runs(sessions)] == [
        DAY + timedelta(days=k) for k in range(4)
    ]


ALLOWED = {
    "deleted": "DELETE FROM orders",
    "moved": "UPDATE orders SET created_at = created_at + interval '1 day'",
}


@pytest.mark.parametrize("statement", ALLOWED.values(), ids=ALLOWED)
async def test_an_unreported_order_can_be_deleted_and_moved(
    engine: AsyncEngine, sessions: Sessions, statement: str
) -> None:
    async with engine.begin() as connection:
        await create_order(connection, created_at=NOON)
        # The report of another order, and of another day with the same number.
        await report(connection, 999)

    await execute(engine, statement)

    assert await list_all_runs(sessions) == []


async def test_other_columns_of_a_reported_order_can_change(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await reported_order(engine)

    await execute(engine, "UPDATE orders SET status = 'cancelled', created_at = created_at")

    assert await list_all_runs(sessions) == []


async def test_deleting_nothing_takes_no_lock(engine: AsyncEngine) -> None:
    async with engine.begin() as builder:
        await builder.execute(LOCK)
        async with asyncio.timeout(5):
            await execute(engine, "DELETE FROM orders WHERE false")


async def test_a_deletion_waits_for_a_build_with_the_order_and_is_rejected(
    engine: AsyncEngine,
) -> None:
    async with engine.begin() as connection:
        order_id = await create_order(connection, created_at=NOON)
    async with engine.begin() as builder:
        await builder.execute(LOCK)
        await report(builder, order_id)
        deleting = asyncio.create_task(execute(engine, "DELETE FROM orders"))
        await wait_for_blocked_transaction(engine)
        assert not deleting.done()

    with pytest.raises(DBAPIError, match="is counted by the report"):
        await deleting
    assert await count(engine) == 1


async def test_a_build_waits_for_a_deletion_and_no_longer_sees_the_order(
    engine: AsyncEngine,
) -> None:
    async def build() -> int:
        async with engine.begin() as connection:
            await connection.execute(LOCK)
            seen = await connection.execute(text("SELECT count(*) FROM orders"))
            return int(seen.scalar_one())

    async with engine.begin() as connection:
        await create_order(connection, created_at=NOON)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM orders"))
        building = asyncio.create_task(build())
        await wait_for_blocked_transaction(engine)

    assert await building == 0


async def test_concurrent_deletions_do_not_wait_for_each_other(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        first = await create_order(connection, created_at=NOON)
        second = await create_order(connection, created_at=NOON)
    async with engine.begin() as connection:
        await connection.execute(text(f"DELETE FROM orders WHERE id = {first}"))
        async with asyncio.timeout(5):
            await execute(engine, f"DELETE FROM orders WHERE id = {second}")

    assert await count(engine) == 0
