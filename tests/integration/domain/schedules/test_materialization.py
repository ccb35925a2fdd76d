"""Materialization: each due fire becomes one run, for the right date."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest

from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_domain.schedules import materialization
from daybook_domain.schedules.materialization import MaterializationResult
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import create_pending_run, list_all_runs
from tests.support.factories.schedules import (
    DAY,
    EARLIER,
    MIDNIGHT,
    create_schedule,
    define_daily_schedule,
    get_schedule,
    materialize_due_fires,
)

pytestmark = pytest.mark.usefixtures("no_runs")


def ledger(runs: list[ReportRun]) -> list[tuple[datetime | None, date, RunState]]:
    return [(run.scheduled_for, run.report_date, run.state) for run in runs]


async def test_a_new_schedule_first_fires_at_its_next_due_time(sessions: Sessions) -> None:
    schedule = await define_daily_schedule(sessions)

    assert schedule.next_fire_at == MIDNIGHT
    assert await materialize_due_fires(sessions, now=EARLIER) == MaterializationResult()
    assert await list_all_runs(sessions) == []


async def test_the_nightly_fire_reports_the_day_that_has_just_ended(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)

    fires = await materialize_due_fires(sessions, now=MIDNIGHT)

    (run,) = await list_all_runs(sessions)
    assert fires == MaterializationResult(runs=1)
    assert ledger([run]) == [(MIDNIGHT, date(2026, 3, 1), RunState.PENDING)]
    assert (run.trigger, run.available_at) == (RunTrigger.SCHEDULE, MIDNIGHT)
    schedule = await get_schedule(sessions)
    assert (schedule.last_fire_at, schedule.next_fire_at) == (MIDNIGHT, MIDNIGHT + DAY)


async def test_many_due_fires_are_materialized_in_several_transactions(sessions: Sessions) -> None:
    await define_daily_schedule(sessions, cron="* * * * *")
    now = EARLIER + timedelta(minutes=250)

    counts = [(await materialize_due_fires(sessions, now=now)).recorded for _ in range(4)]

    assert counts == [100, 100, 50, 0]
    runs = [run for run in await list_all_runs(sessions) if run.scheduled_for is not None]
    assert [run.scheduled_for for run in runs] == [
        EARLIER + timedelta(minutes=k) for k in range(1, 251)
    ]


async def test_fires_of_one_date_share_a_run_and_are_all_recorded(sessions: Sessions) -> None:
    await define_daily_schedule(sessions, cron="* * * * *")

    fires = await materialize_due_fires(sessions, now=EARLIER + timedelta(minutes=3))

    runs = await list_all_runs(sessions)
    assert fires == MaterializationResult(runs=1, joined=2)
    assert {run.joined_run_id for run in runs[1:]} == {runs[0].id}
    assert {run.report_date for run in runs} == {date(2026, 2, 28)}


async def test_a_fire_joins_a_requested_run(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    requested = await create_pending_run(sessions, day=date(2026, 3, 1))

    assert await materialize_due_fires(sessions, now=MIDNIGHT) == MaterializationResult(joined=1)
    assert (await list_all_runs(sessions))[0].joined_run_id == requested.id


@pytest.mark.parametrize(
    ("timezone", "now", "expected"),
    [
        # 02:30 does not exist on 31 March 2024 and occurs twice on 27 October.
        (
            "Europe/Berlin",
            datetime(2024, 3, 30, tzinfo=UTC),
            [
                (datetime(2024, 3, 30, 1, 30, tzinfo=UTC), date(2024, 3, 29)),
                (datetime(2024, 3, 31, 1, 0, tzinfo=UTC), date(2024, 3, 30)),
                (datetime(2024, 4, 1, 0, 30, tzinfo=UTC), date(2024, 3, 31)),
            ],
        ),
        (
            "Europe/Berlin",
            datetime(2024, 10, 26, tzinfo=UTC),
            [
                (datetime(2024, 10, 26, 0, 30, tzinfo=UTC), date(2024, 10, 25)),
                (datetime(2024, 10, 27, 0, 30, tzinfo=UTC), date(2024, 10, 26)),
                (datetime(2024, 10, 28, 1, 30, tzinfo=UTC), date(2024, 10, 27)),
            ],
        ),
    ],
)
async def test_each_local_date_is_reported_once_through_clock_changes(
    sessions: Sessions, timezone: str, now: datetime, expected: list[tuple[datetime, date]]
) -> None:
    await define_daily_schedule(sessions, cron="30 2 * * *", timezone=timezone, now=now)

    await materialize_due_fires(sessions, now=now + 3 * DAY - timedelta(hours=1))

    runs = await list_all_runs(sessions)
    assert [(run.scheduled_for, run.report_date) for run in runs] == expected


async def test_concurrent_schedulers_record_each_fire_once(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    for k in range(5):
        await create_schedule(sessions, f"s{k}")
    now = MIDNIGHT + 2 * DAY

    batches = await asyncio.gather(*(materialize_due_fires(sessions, now=now) for _ in range(6)))

    runs = await list_all_runs(sessions)
    assert sum(batch.recorded for batch in batches) == 18
    assert len({(run.schedule_id, run.scheduled_for) for run in runs}) == len(runs) == 18
    work = [run.report_date for run in runs if run.state == RunState.PENDING]
    assert sorted(work) == [date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)]


async def test_a_scheduler_skips_schedules_that_another_has_locked(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    async with sessions.begin() as one:
        first = await materialization.materialize(one, now=MIDNIGHT, limit=10)
        second = await materialize_due_fires(sessions, now=MIDNIGHT)

    assert (first, second) == (MaterializationResult(runs=1), MaterializationResult())


async def test_a_fire_that_was_rolled_back_is_materialized_again(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    async with sessions() as session:
        await materialization.materialize(session, now=MIDNIGHT, limit=10)
        await session.rollback()

    assert await materialize_due_fires(sessions, now=MIDNIGHT) == MaterializationResult(runs=1)
