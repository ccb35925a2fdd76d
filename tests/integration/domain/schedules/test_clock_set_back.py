"""The clock goes back across midnight after the day was sealed: nothing is lost or done twice."""

from datetime import date, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain import clock
from daybook_domain.reports.business_day import BusinessDay
from daybook_domain.runs import reconciliation
from daybook_domain.runs.errors import FutureDay
from daybook_domain.schedules.materialization import MaterializationResult
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.backfills import advance_backfills, request_backfill, seal_day
from tests.support.factories.reports import build_report, find_report_day, get_quantity_by_order
from tests.support.factories.runs import list_all_runs, request_run
from tests.support.factories.schedules import (
    DAY,
    MIDNIGHT,
    define_daily_schedule,
    get_schedule,
    materialize_due_fires,
)
from tests.support.factories.shop import create_order, reset_shop

MARCH_1 = date(2026, 3, 1)
HOUR = timedelta(hours=1)
BEFORE = MIDNIGHT - timedelta(minutes=10)
"""The time to which the clock goes back."""


async def test_a_sealed_day_stays_sealed_and_takes_in_the_orders_that_follow(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await reset_shop(engine)
    async with sessions() as session:
        now = await clock.now(session)
    # The clock is that of the database, so the end of the day moves instead of it.
    ended = BusinessDay(MARCH_1, now - 23 * HOUR, now - HOUR, "UTC")
    not_ended = BusinessDay(MARCH_1, now - 23 * HOUR, now + HOUR, "UTC")
    async with engine.begin() as connection:
        first = await create_order(connection, created_at=now - 2 * HOUR)
    await build_report(engine, ended)
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE report_days SET data_through = now() + interval '1h'")
        )
    sealed = await find_report_day(engine, MARCH_1)
    async with engine.begin() as connection:
        second = await create_order(connection, created_at=now - HOUR / 2)

    rebuilt = await build_report(engine, not_ended)

    after = await find_report_day(engine, MARCH_1)
    assert sealed is not None
    assert after is not None
    assert (rebuilt.sealed, after.sealed_at, after.revision) == (True, sealed.sealed_at, 2)
    assert after.data_through == sealed.data_through
    assert await get_quantity_by_order(engine, MARCH_1) == {first: 1, second: 1}


@pytest.mark.usefixtures("no_runs")
async def test_a_recorded_fire_does_not_become_due_again(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    await materialize_due_fires(sessions, now=MIDNIGHT)

    back = await materialize_due_fires(sessions, now=BEFORE)
    again = await materialize_due_fires(sessions, now=MIDNIGHT)

    assert (back, again) == (MaterializationResult(), MaterializationResult())
    assert (await get_schedule(sessions)).next_fire_at == MIDNIGHT + DAY
    # A start of the scheduler with other settings does not repeat it, either.
    redefined = await define_daily_schedule(sessions, now=BEFORE, cron="0 0,1 * * *")
    assert redefined.next_fire_at == MIDNIGHT + HOUR
    assert len(await list_all_runs(sessions)) == 1


@pytest.mark.usefixtures("no_runs")
async def test_a_sealed_day_is_reconciled_once_the_clock_has_caught_up(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await seal_day(session, MARCH_1, now=MIDNIGHT)

    requested = []
    for now in (BEFORE, MIDNIGHT, MIDNIGHT + timedelta(minutes=2)):
        async with sessions.begin() as session:
            result = await reconciliation.reconcile(
                session,
                first=MARCH_1,
                timezone="UTC",
                now=now,
                settle=timedelta(minutes=2),
                interval=HOUR,
            )
        requested.append(list(result.requested))

    assert requested == [[], [], [MARCH_1]]


@pytest.mark.usefixtures("no_runs")
async def test_a_day_that_has_not_started_any_more_is_refused_and_a_backfill_of_it_waits(
    sessions: Sessions,
) -> None:
    march_2 = date(2026, 3, 2)
    await request_backfill(sessions, march_2, march_2, now=MIDNIGHT)

    async with sessions.begin() as session:
        with pytest.raises(FutureDay):
            await request_run(session, day=march_2, now=BEFORE)
    decided = [await advance_backfills(sessions, now=now) for now in (BEFORE, MIDNIGHT)]

    assert decided == [0, 1]
