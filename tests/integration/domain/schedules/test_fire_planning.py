"""Catch-up policy and jitter of due fires."""

from datetime import date, datetime, timedelta

import pytest

from daybook_domain.runs import cancellation, claims
from daybook_domain.runs.models import ReportRun, RunState, SkipCause
from daybook_domain.schedules import fire_planning
from daybook_domain.schedules.materialization import MaterializationResult
from daybook_domain.schedules.models import Catchup
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import claim_due_runs, list_all_runs
from tests.support.factories.schedules import (
    DAY,
    MIDNIGHT,
    create_schedule,
    define_daily_schedule,
    get_schedule,
    materialize_due_fires,
    update_schedule_row,
)

pytestmark = pytest.mark.usefixtures("no_runs")

HOUR = timedelta(hours=1)
NEVER_ENDS = timedelta(days=30)
MARCH_1, MARCH_2, MARCH_3 = (date(2026, 3, day) for day in (1, 2, 3))


def ledger(runs: list[ReportRun]) -> list[tuple[datetime | None, date, RunState]]:
    return [(run.scheduled_for, run.report_date, run.state) for run in runs]


async def test_three_missed_nights_become_three_runs_for_their_dates_in_order(
    sessions: Sessions,
) -> None:
    await define_daily_schedule(sessions)

    fires = await materialize_due_fires(sessions, now=MIDNIGHT + 2 * DAY + timedelta(hours=7))

    assert fires == MaterializationResult(runs=3)
    assert ledger(await list_all_runs(sessions)) == [
        (MIDNIGHT + k * DAY, date(2026, 3, 1) + k * DAY, RunState.PENDING) for k in range(3)
    ]
    assert (await get_schedule(sessions)).next_fire_at == MIDNIGHT + 3 * DAY


async def test_a_fire_outside_the_catchup_window_is_recorded_as_missed(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    await update_schedule_row(sessions, catchup_window=timedelta(days=2))

    fires = await materialize_due_fires(sessions, now=MIDNIGHT + 4 * DAY)

    runs = await list_all_runs(sessions)
    assert fires == MaterializationResult(runs=3, missed=2)
    assert [run.state for run in runs] == [RunState.MISSED] * 2 + [RunState.PENDING] * 3
    assert runs[0].reason == "missed: 4 days, 0:00:00 late, outside the window of 2 days, 0:00:00"


async def test_catchup_latest_runs_only_the_last_late_fire(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    await update_schedule_row(sessions, catchup=Catchup.LATEST)

    fires = await materialize_due_fires(sessions, now=MIDNIGHT + 2 * DAY + timedelta(hours=7))

    runs = await list_all_runs(sessions)
    assert fires == MaterializationResult(runs=1, missed=2)
    assert [run.state for run in runs] == [RunState.MISSED, RunState.MISSED, RunState.PENDING]
    assert runs[0].reason == "missed: catchup is latest, and a later fire was due"
    assert runs[2].report_date == date(2026, 3, 3)


async def test_catchup_none_runs_only_fires_that_are_on_time(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    await update_schedule_row(sessions, catchup=Catchup.NONE)

    late = await materialize_due_fires(sessions, now=MIDNIGHT + timedelta(minutes=2))
    on_time = await materialize_due_fires(sessions, now=MIDNIGHT + DAY + timedelta(seconds=59))

    assert (late, on_time) == (MaterializationResult(missed=1), MaterializationResult(runs=1))
    assert (await list_all_runs(sessions))[0].reason == "missed: 0:02:00 late, and catchup is none"


async def test_a_short_window_does_not_skip_a_fire_within_the_misfire_grace(
    sessions: Sessions,
) -> None:
    await define_daily_schedule(sessions)
    await update_schedule_row(sessions, catchup_window=timedelta(0))

    assert await materialize_due_fires(
        sessions, now=MIDNIGHT + timedelta(seconds=5)
    ) == MaterializationResult(runs=1)


async def dispatch_and_claim(sessions: Sessions, *, now: datetime) -> list[ReportRun]:
    """Dispatch and claim all due runs; return them in the order of dispatch."""
    async with sessions.begin() as session:
        dispatched = await claim_due_runs(session, now=now, lease=NEVER_ENDS, limit=100)
    claimed = []
    for run in dispatched:
        async with sessions.begin() as session:
            claimed.append(
                await claims.claim_next(session, run.id, worker="w", now=now, lease=NEVER_ENDS)
            )
    return [run for run in claimed if run is not None]


async def build_all(sessions: Sessions, *, now: datetime) -> list[date]:
    """Build until no run is due; return the dates in the order of their start."""
    dates = []
    while claimed := await dispatch_and_claim(sessions, now=now):
        for run in claimed:
            dates.append(run.report_date)
            async with sessions.begin() as session:
                await cancellation.cancel(session, run.id, now=now)
    return dates


@pytest.mark.parametrize(
    ("catchup", "causes", "reasons", "built"),
    [
        (Catchup.ALL, [None, None, None], [None, None, None], [MARCH_1, MARCH_2, MARCH_3]),
        (
            Catchup.LATEST,
            [SkipCause.CATCHUP, SkipCause.CATCHUP, None],
            ["missed: catchup is latest, and a later fire was due"] * 2 + [None],
            [MARCH_3],
        ),
        (
            Catchup.NONE,
            [SkipCause.CATCHUP] * 3,
            [
                "missed: 2 days, 7:00:00 late, and catchup is none",
                "missed: 1 day, 7:00:00 late, and catchup is none",
                "missed: 7:00:00 late, and catchup is none",
            ],
            [],
        ),
    ],
)
async def test_the_catchup_policy_decides_which_of_three_missed_nights_are_built(
    sessions: Sessions,
    catchup: Catchup,
    causes: list[SkipCause | None],
    reasons: list[str | None],
    built: list[date],
) -> None:
    await create_schedule(sessions, catchup=catchup)
    now = MIDNIGHT + 2 * DAY + 7 * HOUR

    await materialize_due_fires(sessions, now=now)

    ledger = await list_all_runs(sessions)
    assert [(run.scheduled_for, run.report_date) for run in ledger] == [
        (MIDNIGHT, MARCH_1),
        (MIDNIGHT + DAY, MARCH_2),
        (MIDNIGHT + 2 * DAY, MARCH_3),
    ]
    assert [run.cause for run in ledger] == causes
    assert [run.reason for run in ledger] == reasons
    assert await build_all(sessions, now=now) == built


async def test_jitter_is_deterministic_and_shorter_than_the_interval(
    sessions: Sessions,
) -> None:
    schedule = await create_schedule(sessions, cron="*/5 * * * *", jitter=timedelta(hours=1))
    await materialize_due_fires(sessions, now=MIDNIGHT)

    runs = await list_all_runs(sessions)
    due = [MIDNIGHT + timedelta(minutes=5 * k) for k in range(500)]
    delays = [fire_planning.jitter(schedule, at, at + timedelta(minutes=5)) for at in due]
    assert {run.report_date for run in runs} == {date(2026, 2, 28), date(2026, 3, 1)}
    assert [fire_planning.jitter(schedule, at, at + timedelta(minutes=5)) for at in due] == delays
    assert min(delays) < timedelta(seconds=10)
    assert timedelta(minutes=4, seconds=50) < max(delays) < timedelta(minutes=5)
    assert runs[-1].available_at == MIDNIGHT + delays[0]
