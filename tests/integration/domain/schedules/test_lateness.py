"""Late days, found in the database."""

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.reports.business_day import business_day
from daybook_domain.schedules.lateness import list_late_days
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.reports import build_report
from tests.support.factories.schedules import define_daily_schedule
from tests.support.factories.shop import create_order, reset_shop

NOW = datetime(2026, 3, 12, 0, 20, tzinfo=UTC)
YESTERDAY = date(2026, 3, 11)


@pytest.fixture(autouse=True)
async def daily_schedule(engine: AsyncEngine, sessions: Sessions) -> None:
    """Define the daily schedule before an order of yesterday."""
    await reset_shop(engine)
    await define_daily_schedule(sessions, now=NOW - timedelta(days=2))
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE schedules SET created_at = '2026-03-10 00:00Z'"))
        await create_order(connection, created_at=NOW - timedelta(hours=12))


async def late_dates(sessions: Sessions) -> list[date]:
    async with sessions() as session:
        found = await list_late_days(
            session, timezone="UTC", late_after=timedelta(minutes=15), now=NOW
        )
    return [day.report_date for day in found]


async def test_yesterday_is_late_when_it_was_never_built(sessions: Sessions) -> None:
    assert await late_dates(sessions) == [YESTERDAY]


async def test_a_sealed_day_is_not_late(engine: AsyncEngine, sessions: Sessions) -> None:
    await build_report(engine, business_day(YESTERDAY, timezone="UTC"))
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE report_days SET sealed_at = '2026-03-12 00:01Z'"))

    assert await late_dates(sessions) == []


async def test_a_provisional_day_is_late(engine: AsyncEngine, sessions: Sessions) -> None:
    await build_report(engine, business_day(YESTERDAY, timezone="UTC"))
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE report_days SET sealed_at = NULL"))

    assert await late_dates(sessions) == [YESTERDAY]
