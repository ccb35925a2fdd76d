"""Schedules from the settings: redefinition loses no fire and repeats none."""

import asyncio
from datetime import date, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select

from daybook_domain.runs.models import RunState, SkipCause
from daybook_domain.schedules import fire_planning, materialization
from daybook_domain.schedules.errors import (
    InvalidCron,
)
from daybook_domain.schedules.materialization import MaterializationResult
from daybook_domain.schedules.models import Schedule
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import list_all_runs
from tests.support.factories.schedules import (
    DAY,
    EARLIER,
    MIDNIGHT,
    define_daily_schedule,
    get_schedule,
    materialize_due_fires,
    update_schedule_row,
)
from tests.support.postgres import wait_for_blocked_transaction

pytestmark = pytest.mark.usefixtures("no_runs")


async def test_the_same_settings_again_change_nothing(sessions: Sessions) -> None:
    first = await define_daily_schedule(sessions)
    again = await define_daily_schedule(sessions, now=MIDNIGHT + 5 * DAY)

    assert again == first
    assert await list_all_runs(sessions) == []


async def test_a_change_of_cron_loses_no_fire_and_repeats_none(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    now = MIDNIGHT + DAY + timedelta(hours=3)

    changed = await define_daily_schedule(sessions, cron="0 * * * *", now=now)
    await materialize_due_fires(sessions, now=now)

    assert [run.scheduled_for for run in await list_all_runs(sessions)] == [
        MIDNIGHT,
        MIDNIGHT + DAY,
    ]
    assert changed.next_fire_at == now + timedelta(hours=1)


async def test_a_change_of_zone_loses_no_fire_and_repeats_none(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    noon = MIDNIGHT + timedelta(hours=12)

    changed = await define_daily_schedule(sessions, timezone="America/New_York", now=noon)

    assert [run.report_date for run in await list_all_runs(sessions)] == [date(2026, 3, 1)]
    assert changed.next_fire_at == MIDNIGHT + timedelta(hours=29)
    assert fire_planning.get_report_date(changed, changed.next_fire_at) == date(2026, 3, 2)


async def test_a_change_that_waited_for_a_fire_does_not_repeat_the_fire(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    await define_daily_schedule(sessions)
    async with sessions.begin() as session:
        await materialization.materialize(session, now=MIDNIGHT, limit=1)
        # This scheduler read the clock before midnight, and then waited for the lock.
        changing = asyncio.create_task(
            define_daily_schedule(sessions, cron="0 0,12 * * *", now=EARLIER)
        )
        await wait_for_blocked_transaction(engine)

    assert (await changing).next_fire_at == MIDNIGHT + timedelta(hours=12)


async def test_schedulers_that_start_concurrently_define_one_schedule(sessions: Sessions) -> None:
    schedules = await asyncio.gather(*(define_daily_schedule(sessions) for _ in range(4)))

    assert len({schedule.id for schedule in schedules}) == 1


async def test_a_changed_paused_schedule_stays_paused_and_records_its_fires(
    sessions: Sessions,
) -> None:
    await define_daily_schedule(sessions)
    await update_schedule_row(sessions, enabled=False, note="freeze", paused_at=EARLIER)
    now = MIDNIGHT + 2 * DAY

    fires = await materialize_due_fires(sessions, now=now)
    changed = await define_daily_schedule(sessions, cron="0 6 * * *", now=now)

    runs = await list_all_runs(sessions)
    assert (fires, changed.enabled) == (MaterializationResult(paused=3), False)
    assert {(run.state, run.cause) for run in runs} == {(RunState.SKIPPED, SkipCause.PAUSED)}
    assert {run.reason for run in runs} == {"paused: freeze"}


async def test_an_invalid_expression_is_rejected_before_any_write(sessions: Sessions) -> None:
    with pytest.raises(InvalidCron):
        await define_daily_schedule(sessions, cron="0 25 * * *")

    async with sessions() as session:
        assert (await session.exec(select(Schedule))).all() == []


async def test_a_broken_schedule_that_is_redefined_makes_up_for_its_fires(
    sessions: Sessions,
) -> None:
    daily = await define_daily_schedule(sessions)
    await update_schedule_row(sessions, cron="nonsense", next_fire_at=MIDNIGHT)
    await materialize_due_fires(sessions, now=MIDNIGHT)
    assert (await get_schedule(sessions, daily.name)).error is not None

    redefined = await define_daily_schedule(sessions, now=MIDNIGHT + DAY)

    assert (redefined.error, redefined.next_fire_at) == (None, MIDNIGHT)
    assert await materialize_due_fires(sessions, now=MIDNIGHT + DAY) == MaterializationResult(
        runs=2
    )
