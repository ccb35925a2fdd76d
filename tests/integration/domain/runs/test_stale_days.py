"""Days whose report misses a change of an order: marked, rebuilt at any age, and late."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.orders import service as orders
from daybook_domain.orders.order_validation import NewItem
from daybook_domain.reports.build import build_day
from daybook_domain.reports.business_day import business_day
from daybook_domain.runs import cancellation, reconciliation, requests
from daybook_domain.runs.models import RunState, RunTrigger
from daybook_domain.schedules.audit import find_problems
from daybook_domain.schedules.lateness import LateDay, list_late_days
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.reports import (
    build_report,
    create_running_run,
    find_report_day,
    get_quantity_by_order,
)
from tests.support.factories.runs import list_all_runs
from tests.support.factories.shop import create_order, delete_order, reset_shop
from tests.support.postgres import wait_for_blocked_transaction

DAY = business_day(date(2026, 3, 1), timezone="UTC")
NOON = DAY.starts_at + timedelta(hours=12)
LONG_AFTER = datetime(2100, 1, 1, tzinfo=UTC)
"""Years after the day, and after the real time at which the tests mark it."""


@pytest.fixture
async def order_id(engine: AsyncEngine) -> int:
    """Return a pending order of one product, which the report of `DAY` contains."""
    await reset_shop(engine)
    async with engine.begin() as connection:
        added = await create_order(connection, created_at=NOON)
        await connection.execute(text("UPDATE orders SET status = 'pending'"))
    await build_report(engine, DAY)
    return added


async def change_items(sessions: Sessions, order_id: int, *, quantity: int = 5) -> None:
    async with sessions.begin() as session:
        await orders.change(session, order_id, changes={"items": (NewItem(1, quantity),)})


async def reconcile(
    sessions: Sessions, *, now: datetime = LONG_AFTER
) -> reconciliation.Reconciliation:
    """Reconcile without recent days: only marked days are due."""
    async with sessions.begin() as session:
        return await reconciliation.reconcile(
            session,
            first=None,
            timezone="UTC",
            now=now,
            settle=timedelta(minutes=2),
            interval=timedelta(hours=1),
        )


async def end_run(engine: AsyncEngine, state: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "UPDATE report_runs SET state = :state, finished_at = now() WHERE state = 'pending'"
            ),
            {"state": state},
        )


async def stale_since(engine: AsyncEngine) -> datetime | None:
    day = await find_report_day(engine, DAY.date)
    assert day is not None
    return day.stale_since


async def test_a_day_whose_rebuild_failed_is_rebuilt_at_any_age(
    engine: AsyncEngine, sessions: Sessions, order_id: int
) -> None:
    await change_items(sessions, order_id)
    await end_run(engine, "failed")

    result = await reconcile(sessions)

    assert list(result.requested) == [DAY.date]
    (run,) = [run for run in await list_all_runs(sessions) if run.state is RunState.PENDING]
    assert (run.report_date, run.trigger) == (DAY.date, RunTrigger.RECONCILE)
    await build_report(engine, DAY)
    assert await get_quantity_by_order(engine, DAY.date) == {order_id: 5}
    assert await stale_since(engine) is None


async def test_a_day_whose_change_joined_a_run_that_was_cancelled_is_rebuilt(
    engine: AsyncEngine, sessions: Sessions, order_id: int
) -> None:
    async with sessions.begin() as session:
        requested = await requests.request(
            session, day=DAY, trigger=RunTrigger.MANUAL, now=DAY.ends_at
        )
    await change_items(sessions, order_id)
    async with sessions.begin() as session:
        await cancellation.cancel(session, requested.run.id, now=DAY.ends_at)

    assert list((await reconcile(sessions)).requested) == [DAY.date]


@pytest.mark.parametrize("offset", [-1, 0, 1])
async def test_a_report_of_the_date_before_or_after_in_utc_is_rebuilt_as_well(
    engine: AsyncEngine, sessions: Sessions, order_id: int, offset: int
) -> None:
    """The local date of an order differs from that in UTC by up to one day."""
    local_day = DAY.date + timedelta(days=offset)
    async with engine.begin() as connection:
        for statement in (
            "UPDATE reports SET report_at = :day",
            "UPDATE report_days SET report_date = :day",
        ):
            await connection.execute(text(statement), {"day": local_day})

    await change_items(sessions, order_id)

    waiting = [run for run in await list_all_runs(sessions) if run.state is RunState.PENDING]
    day = await find_report_day(engine, local_day)
    assert day is not None
    assert [run.report_date for run in waiting] == [local_day]
    assert day.stale_since is not None


async def test_a_change_that_is_rolled_back_marks_nothing(
    engine: AsyncEngine, sessions: Sessions, order_id: int
) -> None:
    async with sessions() as session:
        await orders.change(session, order_id, changes={"items": (NewItem(1, 5),)})
        await session.rollback()

    assert await stale_since(engine) is None


async def test_the_mark_has_the_time_of_the_first_change_that_the_report_misses(
    engine: AsyncEngine, sessions: Sessions, order_id: int
) -> None:
    await change_items(sessions, order_id, quantity=5)
    first = await stale_since(engine)
    await change_items(sessions, order_id, quantity=6)

    assert first is not None
    assert await stale_since(engine) == first


async def test_the_deletion_of_a_counted_order_marks_its_day(
    engine: AsyncEngine, order_id: int
) -> None:
    async with engine.begin() as connection:
        await delete_order(connection, order_id)

    assert await stale_since(engine) is not None


async def test_a_change_during_a_build_is_marked_after_it(
    engine: AsyncEngine, sessions: Sessions, order_id: int
) -> None:
    run_id = await create_running_run(engine, DAY.date)
    async with engine.begin() as connection:
        await build_day(connection, day=DAY, run_id=run_id, fence=1)
        changing = asyncio.create_task(change_items(sessions, order_id))
        await wait_for_blocked_transaction(engine)
    await changing

    assert await stale_since(engine) is not None
    assert await get_quantity_by_order(engine, DAY.date) == {order_id: 1}


async def test_a_build_that_waits_for_a_change_sees_it_and_clears_its_mark(
    engine: AsyncEngine, sessions: Sessions, order_id: int
) -> None:
    async with sessions.begin() as session:
        await orders.change(session, order_id, changes={"items": (NewItem(1, 5),)})
        building = asyncio.create_task(build_report(engine, DAY))
        await wait_for_blocked_transaction(engine)
    await building

    assert await stale_since(engine) is None
    assert await get_quantity_by_order(engine, DAY.date) == {order_id: 5}


@pytest.mark.parametrize("moved", [timedelta(0), timedelta(days=-1)])
async def test_a_mark_that_was_set_during_a_build_without_the_lock_of_its_date_stays(
    engine: AsyncEngine, order_id: int, moved: timedelta
) -> None:
    late = await _add_late_order(engine)
    run_id = await create_running_run(engine, DAY.date)
    async with engine.connect() as blocker:
        # The build has read the manifest, and blocks at the row of the late order.
        await blocker.execute(
            text("INSERT INTO reports (report_at, order_id, count_product) VALUES (:day, :id, 0)"),
            {"day": DAY.date, "id": late},
        )
        async with engine.begin() as connection:
            building = asyncio.create_task(build_day(connection, day=DAY, run_id=run_id, fence=1))
            await wait_for_blocked_transaction(engine)
            async with engine.begin() as other:
                await other.execute(
                    text("UPDATE report_days SET stale_since = clock_timestamp() + :moved"),
                    {"moved": moved},
                )
            await blocker.rollback()
            await building

    assert await stale_since(engine) is not None


async def test_a_build_clears_a_mark_that_it_has_seen_although_the_clock_was_set_back(
    engine: AsyncEngine, order_id: int
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE report_days SET stale_since = clock_timestamp() + interval '1 day'")
        )

    await build_report(engine, DAY)

    assert await stale_since(engine) is None


async def test_a_marked_day_is_requested_two_minutes_later_and_then_every_hour(
    engine: AsyncEngine, sessions: Sessions, order_id: int
) -> None:
    marked_at = datetime(2026, 6, 1, tzinfo=UTC)
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE report_days SET stale_since = :at, reconciled_at = :at"),
            {"at": marked_at},
        )

    requested_at = []
    for minute in (1, 2, 3, 61, 62, 121, 122):
        result = await reconcile(sessions, now=marked_at + timedelta(minutes=minute))
        requested_at += [minute] * len(result.requested)
        await end_run(engine, "failed")

    assert requested_at == [2, 62, 122]


async def test_a_mark_from_a_clock_that_was_ahead_does_not_delay_the_rebuild(
    engine: AsyncEngine, sessions: Sessions, order_id: int
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE report_days SET stale_since = :at, reconciled_at = :at"),
            {"at": LONG_AFTER + timedelta(days=365)},
        )

    results = [await reconcile(sessions) for _ in range(2)]

    assert [list(result.requested) for result in results] == [[DAY.date], []]


async def test_a_marked_day_that_cannot_be_requested_does_not_delay_the_others(
    engine: AsyncEngine, sessions: Sessions, order_id: int
) -> None:
    tomorrow, no_business_day = (LONG_AFTER + timedelta(days=1)).date(), date(1026, 1, 1)
    await change_items(sessions, order_id)
    async with engine.begin() as connection:
        for other in (tomorrow, no_business_day):
            await connection.execute(
                text(
                    "INSERT INTO report_days SELECT (jsonb_populate_record(report_days,"
                    " jsonb_build_object('report_date', CAST(:day AS date)))).* FROM report_days"
                    " WHERE report_date = :built"
                ),
                {"day": other, "built": DAY.date},
            )

    first = await reconcile(sessions)
    second = await reconcile(sessions)

    assert (list(first.requested), set(first.postponed)) == (
        [DAY.date],
        {tomorrow, no_business_day},
    )
    assert (second.requested, second.postponed) == ([], [])


async def find_dates_with_problems(sessions: Sessions, *, now: datetime) -> Mapping[str, str]:
    async with sessions() as session:
        found = await find_problems(session, since=DAY.ends_at, now=now)
    return {finding.subject: finding.problem for finding in found}


async def test_the_audit_finds_a_day_that_stays_stale(
    engine: AsyncEngine, sessions: Sessions, order_id: int
) -> None:
    await change_items(sessions, order_id)
    await end_run(engine, "failed")
    since = await stale_since(engine)
    assert since is not None

    early = await find_dates_with_problems(sessions, now=since + timedelta(minutes=9))
    found = await find_dates_with_problems(sessions, now=since + timedelta(minutes=11))

    assert early == {}
    assert found == {"date 2026-03-01": "stale: a change of an order is not in its report"}


@pytest.mark.parametrize(
    "change", ["UPDATE order_items SET quantity = 5", "DELETE FROM order_items"]
)
async def test_the_audit_finds_a_report_that_differs_from_its_orders_without_a_mark(
    engine: AsyncEngine, sessions: Sessions, order_id: int, change: str
) -> None:
    before = await find_dates_with_problems(sessions, now=LONG_AFTER)
    async with engine.begin() as connection:
        await connection.execute(text(change))

    found = await find_dates_with_problems(sessions, now=LONG_AFTER)

    assert before == {}
    assert found == {"date 2026-03-01": "differs from its orders, and is not marked as stale"}


async def test_a_stale_day_is_late_after_the_tolerance_whatever_its_age(
    engine: AsyncEngine, sessions: Sessions, order_id: int
) -> None:
    await change_items(sessions, order_id)
    since = await stale_since(engine)
    assert since is not None
    late_after = timedelta(minutes=15)

    async with sessions() as session:
        late = [
            await list_late_days(session, timezone="UTC", late_after=late_after, now=now)
            for now in (since + late_after - timedelta(seconds=1), since + late_after)
        ]

    assert late == [[], [LateDay(DAY.date, since)]]


async def _add_late_order(engine: AsyncEngine) -> int:
    async with engine.begin() as connection:
        return await create_order(connection, created_at=NOON + timedelta(hours=1))
