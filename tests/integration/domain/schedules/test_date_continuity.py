"""Changes of the settings' schedule: every date has a fire."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.schedules.audit import find_problems, get_audit_start
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import list_all_runs
from tests.support.factories.schedules import (
    define_daily_schedule,
    get_schedule,
    materialize_due_fires,
)

pytestmark = pytest.mark.usefixtures("no_runs")

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def list_dates(sessions: Sessions) -> list[date]:
    return sorted(run.report_date for run in await list_all_runs(sessions))


async def test_a_cron_that_is_set_to_an_earlier_time_after_that_time_reports_the_date(
    sessions: Sessions,
) -> None:
    await define_daily_schedule(sessions, cron="0 2 * * *", now=datetime(2026, 3, 1, 3, tzinfo=UTC))
    await materialize_due_fires(sessions, now=datetime(2026, 3, 2, 2, tzinfo=UTC))

    deployed_at = datetime(2026, 3, 3, 1, 30, tzinfo=UTC)
    await define_daily_schedule(sessions, cron="0 1 * * *", now=deployed_at)
    await materialize_due_fires(sessions, now=deployed_at)
    await materialize_due_fires(sessions, now=datetime(2026, 3, 4, 1, tzinfo=UTC))

    assert await list_dates(sessions) == [date(2026, 3, day) for day in (1, 2, 3)]


async def test_a_zone_that_is_moved_in_the_afternoon_skips_no_date(sessions: Sessions) -> None:
    await define_daily_schedule(sessions, now=START)
    await materialize_due_fires(sessions, now=datetime(2026, 3, 3, tzinfo=UTC))

    moved_at = datetime(2026, 3, 3, 16, tzinfo=UTC)
    await define_daily_schedule(sessions, timezone="Asia/Tokyo", now=moved_at)
    await materialize_due_fires(sessions, now=moved_at)
    await materialize_due_fires(sessions, now=datetime(2026, 3, 4, 15, tzinfo=UTC))

    assert await list_dates(sessions) == [date(2026, 3, day) for day in (1, 2, 3, 4)]


async def test_a_change_before_the_first_fire_still_reports_its_date(sessions: Sessions) -> None:
    await define_daily_schedule(
        sessions, cron="0 2 * * *", now=datetime(2026, 3, 2, 1, 20, tzinfo=UTC)
    )

    deployed_at = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)
    await define_daily_schedule(sessions, cron="0 1 * * *", now=deployed_at)
    await materialize_due_fires(sessions, now=deployed_at)

    assert await list_dates(sessions) == [date(2026, 3, 1)]


async def test_a_date_whose_new_due_time_is_that_of_a_recorded_fire_has_a_fire_of_its_own(
    sessions: Sessions,
) -> None:
    await define_daily_schedule(sessions, cron="0 12 * * *", now=START)
    noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
    await materialize_due_fires(sessions, now=noon)

    # At that instant it is 02:00 of the next day there, so the fire would report 2 March.
    await define_daily_schedule(sessions, cron="0 2 * * *", timezone="Pacific/Kiritimati", now=noon)
    await materialize_due_fires(sessions, now=noon)

    assert await list_dates(sessions) == [date(2026, 3, 1), date(2026, 3, 2)]
    schedule = await get_schedule(sessions)
    assert schedule.next_fire_at == noon + timedelta(days=1)


async def test_equal_settings_change_nothing(sessions: Sessions) -> None:
    before = await define_daily_schedule(sessions, now=START)

    after = await define_daily_schedule(sessions, now=START + timedelta(hours=3))

    assert after.version == before.version
    assert after.next_fire_at == before.next_fire_at


CHANGE = st.tuples(
    st.integers(min_value=0, max_value=3 * 24 * 60),
    st.integers(min_value=0, max_value=23),
    st.sampled_from([0, 30, 59]),
    st.sampled_from(
        (
            *("UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York", "Pacific/Kiritimati"),
            *("Pacific/Pago_Pago", "Australia/Lord_Howe"),
        )
    ),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.lists(CHANGE, min_size=1, max_size=5))
async def test_random_changes_of_the_settings_leave_no_date_without_a_fire(
    sessions: Sessions, engine: AsyncEngine, changes: Sequence[tuple[int, int, int, str]]
) -> None:
    async with engine.begin() as connection:
        for table in ("report_runs", "schedules"):
            await connection.execute(text(f"DELETE FROM {table}"))
    # Clocks change on 8 March in America, on 29 March in Europe, and on 5 April on Lord Howe.
    now = datetime(2026, 3, 27, 12, tzinfo=UTC)
    await define_daily_schedule(sessions, now=now)
    for minutes, hour, minute, timezone in changes:
        now += timedelta(minutes=minutes)
        await define_daily_schedule(
            sessions, cron=f"{minute} {hour} * * *", timezone=timezone, now=now
        )
    now += timedelta(days=2)
    await materialize_due_fires(sessions, now=now)

    dates = await list_dates(sessions)

    span = (dates[-1] - dates[0]).days + 1
    assert dates[0] <= date(2026, 3, 27)
    assert set(dates) == {dates[0] + timedelta(days=n) for n in range(span)}
    async with sessions() as session:
        since = await get_audit_start(session, requested=now - timedelta(days=30))
        problems = await find_problems(session, since=since, now=now)
    assert [each for each in problems if each.subject == "schedule daily"] == []
