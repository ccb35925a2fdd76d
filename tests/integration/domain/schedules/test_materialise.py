"""Due fires become runs: each one, once, for the right date, whatever went before."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select

from daybook_domain.runs import cancellation
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger, SkipCause
from daybook_domain.schedules import materialization as service
from daybook_domain.schedules.errors import InvalidCron
from daybook_domain.schedules.materialization import MaterializationResult
from daybook_domain.schedules.models import Catchup, Overlap, Schedule
from daybook_platform.postgres.engine import Sessions
from tests.support.locks import somebody_waits
from tests.support.runs import claim_due, everything, pending
from tests.support.schedules import (
    DAY,
    EARLIER,
    MIDNIGHT,
    add,
    change,
    define,
    find,
    materialise,
)

pytestmark = pytest.mark.usefixtures("no_runs")


def ledger(runs: list[ReportRun]) -> list[tuple[datetime | None, date, RunState]]:
    return [(run.scheduled_for, run.report_date, run.state) for run in runs]


async def test_a_new_schedule_first_fires_at_its_next_due_time(sessions: Sessions) -> None:
    schedule = await define(sessions)

    assert schedule.next_fire_at == MIDNIGHT
    assert await materialise(sessions, now=EARLIER) == MaterializationResult()
    assert await everything(sessions) == []


async def test_the_nightly_fire_reports_the_day_that_has_just_ended(sessions: Sessions) -> None:
    await define(sessions)

    fires = await materialise(sessions, now=MIDNIGHT)

    (run,) = await everything(sessions)
    assert fires == MaterializationResult(runs=1)
    assert ledger([run]) == [(MIDNIGHT, date(2026, 3, 1), RunState.PENDING)]
    assert (run.trigger, run.available_at) == (RunTrigger.SCHEDULE, MIDNIGHT)
    schedule = await find(sessions)
    assert (schedule.last_fire_at, schedule.next_fire_at) == (MIDNIGHT, MIDNIGHT + DAY)


async def test_three_missed_nights_become_three_runs_for_their_dates_in_order(
    sessions: Sessions,
) -> None:
    await define(sessions)

    fires = await materialise(sessions, now=MIDNIGHT + 2 * DAY + timedelta(hours=7))

    assert fires == MaterializationResult(runs=3)
    assert ledger(await everything(sessions)) == [
        (MIDNIGHT + k * DAY, date(2026, 3, 1) + k * DAY, RunState.PENDING) for k in range(3)
    ]
    assert (await find(sessions)).next_fire_at == MIDNIGHT + 3 * DAY


async def test_what_is_outside_the_window_is_in_the_ledger_as_missed(sessions: Sessions) -> None:
    await define(sessions)
    await change(sessions, catchup_window=timedelta(days=2))

    fires = await materialise(sessions, now=MIDNIGHT + 4 * DAY)

    runs = await everything(sessions)
    assert fires == MaterializationResult(runs=3, missed=2)
    assert [run.state for run in runs] == [RunState.MISSED] * 2 + [RunState.PENDING] * 3
    assert runs[0].reason == "missed: 4 days, 0:00:00 late, outside the window of 2 days, 0:00:00"


async def test_catchup_latest_runs_only_the_last_of_the_missed_fires(sessions: Sessions) -> None:
    await define(sessions)
    await change(sessions, catchup=Catchup.LATEST)

    fires = await materialise(sessions, now=MIDNIGHT + 2 * DAY + timedelta(hours=7))

    runs = await everything(sessions)
    assert fires == MaterializationResult(runs=1, missed=2)
    assert [run.state for run in runs] == [RunState.MISSED, RunState.MISSED, RunState.PENDING]
    assert runs[0].reason == "missed: catchup is latest, and a later fire was due"
    assert runs[2].report_date == date(2026, 3, 3)


async def test_catchup_none_runs_only_what_is_due_now(sessions: Sessions) -> None:
    await define(sessions)
    await change(sessions, catchup=Catchup.NONE)

    late = await materialise(sessions, now=MIDNIGHT + timedelta(minutes=2))
    on_time = await materialise(sessions, now=MIDNIGHT + DAY + timedelta(seconds=59))

    assert (late, on_time) == (MaterializationResult(missed=1), MaterializationResult(runs=1))
    assert (await everything(sessions))[0].reason == "missed: 0:02:00 late, and catchup is none"


async def test_a_short_window_does_not_make_a_fire_late_that_is_picked_up_soon(
    sessions: Sessions,
) -> None:
    await define(sessions)
    await change(sessions, catchup_window=timedelta(0))

    assert await materialise(
        sessions, now=MIDNIGHT + timedelta(seconds=5)
    ) == MaterializationResult(runs=1)


async def test_a_long_absence_is_made_up_for_in_several_transactions(sessions: Sessions) -> None:
    await define(sessions, cron="* * * * *")
    now = EARLIER + timedelta(minutes=250)

    counts = [(await materialise(sessions, now=now)).recorded for _ in range(4)]

    assert counts == [100, 100, 50, 0]
    runs = [run for run in await everything(sessions) if run.scheduled_for is not None]
    assert [run.scheduled_for for run in runs] == [
        EARLIER + timedelta(minutes=k) for k in range(1, 251)
    ]


async def test_fires_of_one_date_share_a_run_and_all_are_in_the_ledger(sessions: Sessions) -> None:
    await define(sessions, cron="* * * * *")

    fires = await materialise(sessions, now=EARLIER + timedelta(minutes=3))

    runs = await everything(sessions)
    assert fires == MaterializationResult(runs=1, joined=2)
    assert {run.joined_run_id for run in runs[1:]} == {runs[0].id}
    assert {run.report_date for run in runs} == {date(2026, 2, 28)}


async def test_a_fire_joins_a_run_that_somebody_asked_for(sessions: Sessions) -> None:
    await define(sessions)
    waits = await pending(sessions, day=date(2026, 3, 1))

    assert await materialise(sessions, now=MIDNIGHT) == MaterializationResult(joined=1)
    assert (await everything(sessions))[0].joined_run_id == waits.id


@pytest.mark.parametrize(
    ("timezone", "now", "expected"),
    [
        # 02:30 does not exist on 31 March 2024 and comes twice on 27 October.
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
async def test_each_local_date_is_reported_once_whatever_the_clocks_do(
    sessions: Sessions, timezone: str, now: datetime, expected: list[tuple[datetime, date]]
) -> None:
    await define(sessions, cron="30 2 * * *", timezone=timezone, now=now)

    await materialise(sessions, now=now + 3 * DAY - timedelta(hours=1))

    runs = await everything(sessions)
    assert [(run.scheduled_for, run.report_date) for run in runs] == expected


async def test_the_same_settings_again_change_nothing(sessions: Sessions) -> None:
    first = await define(sessions)
    again = await define(sessions, now=MIDNIGHT + 5 * DAY)

    assert again == first
    assert await everything(sessions) == []


async def test_a_change_of_cron_loses_no_fire_and_repeats_none(sessions: Sessions) -> None:
    await define(sessions)
    now = MIDNIGHT + DAY + timedelta(hours=3)

    changed = await define(sessions, cron="0 * * * *", now=now)
    await materialise(sessions, now=now)

    assert [run.scheduled_for for run in await everything(sessions)] == [MIDNIGHT, MIDNIGHT + DAY]
    assert changed.next_fire_at == now + timedelta(hours=1)


async def test_a_change_of_zone_loses_no_fire_and_repeats_none(sessions: Sessions) -> None:
    await define(sessions)
    noon = MIDNIGHT + timedelta(hours=12)

    changed = await define(sessions, timezone="America/New_York", now=noon)

    assert [run.report_date for run in await everything(sessions)] == [date(2026, 3, 1)]
    assert changed.next_fire_at == MIDNIGHT + timedelta(hours=29)
    assert service.get_report_date(changed, changed.next_fire_at) == date(2026, 3, 2)


async def test_a_change_that_waited_for_a_fire_does_not_repeat_it(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    await define(sessions)
    async with sessions.begin() as session:
        await service.materialize(session, now=MIDNIGHT, limit=1)
        # This scheduler looked at the clock before midnight, and then had to wait.
        changing = asyncio.create_task(define(sessions, cron="0 0,12 * * *", now=EARLIER))
        await somebody_waits(engine)

    assert (await changing).next_fire_at == MIDNIGHT + timedelta(hours=12)


async def test_schedulers_that_start_at_once_define_one_schedule(sessions: Sessions) -> None:
    schedules = await asyncio.gather(*(define(sessions) for _ in range(4)))

    assert len({schedule.id for schedule in schedules}) == 1


async def test_the_fires_of_a_paused_schedule_are_in_the_ledger_and_a_change_leaves_it_paused(
    sessions: Sessions,
) -> None:
    await define(sessions)
    await change(sessions, enabled=False, note="freeze", paused_at=EARLIER)
    now = MIDNIGHT + 2 * DAY

    fires = await materialise(sessions, now=now)
    changed = await define(sessions, cron="0 6 * * *", now=now)

    runs = await everything(sessions)
    assert (fires, changed.enabled) == (MaterializationResult(paused=3), False)
    assert {(run.state, run.cause) for run in runs} == {(RunState.SKIPPED, SkipCause.PAUSED)}
    assert {run.reason for run in runs} == {"paused: freeze"}


async def test_a_bad_expression_is_refused_before_anything_is_written(sessions: Sessions) -> None:
    with pytest.raises(InvalidCron):
        await define(sessions, cron="0 25 * * *")

    async with sessions() as session:
        assert (await session.exec(select(Schedule))).all() == []


async def test_schedulers_at_once_make_one_run_for_each_fire(sessions: Sessions) -> None:
    await define(sessions)
    for k in range(5):
        await add(sessions, f"s{k}")
    now = MIDNIGHT + 2 * DAY

    batches = await asyncio.gather(*(materialise(sessions, now=now) for _ in range(6)))

    runs = await everything(sessions)
    assert sum(batch.recorded for batch in batches) == 18
    assert len({(run.schedule_id, run.scheduled_for) for run in runs}) == len(runs) == 18
    work = [run.report_date for run in runs if run.state == RunState.PENDING]
    assert sorted(work) == [date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)]


async def test_a_scheduler_passes_over_what_another_holds(sessions: Sessions) -> None:
    await define(sessions)
    async with sessions.begin() as one:
        mine = await service.materialize(one, now=MIDNIGHT, limit=10)
        others = await materialise(sessions, now=MIDNIGHT)

    assert (mine, others) == (MaterializationResult(runs=1), MaterializationResult())


async def test_a_fire_that_was_rolled_back_is_materialised_again(sessions: Sessions) -> None:
    await define(sessions)
    async with sessions() as session:
        await service.materialize(session, now=MIDNIGHT, limit=10)
        await session.rollback()

    assert await materialise(sessions, now=MIDNIGHT) == MaterializationResult(runs=1)


async def test_an_error_is_recorded_on_its_schedule_and_stops_no_other(sessions: Sessions) -> None:
    await define(sessions)
    await add(sessions, "broken")
    await change(sessions, "broken", timezone="Mars/Olympus", next_fire_at=EARLIER)

    fires = await materialise(sessions, now=MIDNIGHT)

    assert fires == MaterializationResult(runs=1, failed=1, broken=("broken",))
    broken = await find(sessions, "broken")
    assert broken.error is not None
    assert "Mars/Olympus" in broken.error
    assert broken.next_fire_at == EARLIER


async def test_a_broken_schedule_holds_up_nobody_and_recovers(sessions: Sessions) -> None:
    await add(sessions, "broken")
    await change(sessions, "broken", cron="nonsense", next_fire_at=EARLIER)
    await materialise(sessions, now=EARLIER, limit=1)
    await define(sessions)

    assert await materialise(sessions, now=MIDNIGHT, limit=1) == MaterializationResult(runs=1)
    await change(sessions, "broken", cron="0 0 * * *")
    recovered = await materialise(sessions, now=MIDNIGHT, limit=1)
    assert recovered.recorded == 2
    assert (await find(sessions, "broken")).error is None


async def test_a_schedule_that_breaks_half_way_keeps_none_of_its_fires(sessions: Sessions) -> None:
    await add(sessions, "far")
    # The second fire, in the year 10000, is a date that nothing can hold.
    far = datetime(9998, 12, 30, tzinfo=UTC)
    await change(sessions, "far", next_fire_at=far, report_offset_days=1)

    fires = await materialise(sessions, now=far + 2 * DAY)

    assert fires == MaterializationResult(failed=1, broken=("far",))
    assert await everything(sessions) == []
    assert (await find(sessions, "far")).next_fire_at == far


async def test_an_error_of_the_database_is_recorded_on_its_schedule_and_stops_no_other(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    for name in ("one", "bad", "two"):
        await add(sessions, name, report_offset_days=-1 if name == "one" else -2)
    bad = await find(sessions, "bad")
    async with engine.begin() as connection:
        await connection.execute(
            text(f"ALTER TABLE report_runs ADD CONSTRAINT spoilt CHECK (schedule_id <> {bad.id})")
        )
    try:
        fires = await materialise(sessions, now=MIDNIGHT)
        again = await materialise(sessions, now=MIDNIGHT)
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE report_runs DROP CONSTRAINT spoilt"))

    assert fires == MaterializationResult(runs=2, failed=1, broken=("bad",))
    assert again == MaterializationResult(failed=1)
    assert "spoilt" in ((await find(sessions, "bad")).error or "")


async def test_of_overlapping_fires_under_skip_one_becomes_work(sessions: Sessions) -> None:
    await add(sessions, cron="0 * * * *", overlap=Overlap.SKIP)

    fires = [await materialise(sessions, now=MIDNIGHT + timedelta(hours=k)) for k in (0, 0, 1, 3)]

    runs = await everything(sessions)
    assert fires == [
        MaterializationResult(runs=1),
        MaterializationResult(),
        MaterializationResult(overlapped=1),
        MaterializationResult(overlapped=2),
    ]
    assert {run.reason for run in runs[1:]} == {
        "overlap: earlier work of this schedule was in progress"
    }
    async with sessions.begin() as session:
        await cancellation.cancel(session, runs[0].id, now=MIDNIGHT)
    assert await materialise(sessions, now=MIDNIGHT + timedelta(hours=4)) == MaterializationResult(
        runs=1
    )


async def test_a_run_that_was_joined_is_still_going_for_who_joined_it(sessions: Sessions) -> None:
    await add(sessions, cron="0 * * * *", overlap=Overlap.SKIP)
    await pending(sessions, day=date(2026, 3, 1))

    fires = [await materialise(sessions, now=MIDNIGHT + timedelta(hours=k)) for k in (0, 1)]

    assert fires == [MaterializationResult(joined=1), MaterializationResult(overlapped=1)]


@pytest.mark.parametrize(
    ("overlap", "at_once"), [(Overlap.BUFFER_ONE, [1, 0]), (Overlap.ALLOW, [3, 0])]
)
async def test_work_of_a_schedule_is_sent_one_by_one_in_order_unless_it_may_overlap(
    sessions: Sessions, overlap: Overlap, at_once: list[int]
) -> None:
    await add(sessions, overlap=overlap)
    now = MIDNIGHT + 2 * DAY
    await materialise(sessions, now=now)

    batches = []
    for _ in range(2):
        async with sessions.begin() as session:
            batches.append(await claim_due(session, now=now, lease=DAY, limit=10))
    assert [len(batch) for batch in batches] == at_once
    assert batches[0][0].report_date == date(2026, 3, 1)
    async with sessions.begin() as session:
        await cancellation.cancel(session, batches[0][0].id, now=now)
        later = await claim_due(session, now=now, lease=DAY, limit=10)
    assert [run.report_date for run in later] == [date(2026, 3, 2)][: overlap == "buffer_one"]


async def test_schedulers_at_once_send_no_two_runs_of_a_schedule(sessions: Sessions) -> None:
    await add(sessions)
    now = MIDNIGHT + 5 * DAY
    await materialise(sessions, now=now)

    async def take() -> int:
        async with sessions.begin() as session:
            return len(await claim_due(session, now=now, lease=DAY, limit=10))

    assert sum(await asyncio.gather(*(take() for _ in range(6)))) == 1


async def test_jitter_is_the_same_for_everybody_and_ends_before_the_next_fire(
    sessions: Sessions,
) -> None:
    schedule = await add(sessions, cron="*/5 * * * *", jitter=timedelta(hours=1))
    await materialise(sessions, now=MIDNIGHT)

    runs = await everything(sessions)
    due = [MIDNIGHT + timedelta(minutes=5 * k) for k in range(500)]
    waits = [service.jitter(schedule, at, at + timedelta(minutes=5)) for at in due]
    assert {run.report_date for run in runs} == {date(2026, 2, 28), date(2026, 3, 1)}
    assert [service.jitter(schedule, at, at + timedelta(minutes=5)) for at in due] == waits
    assert min(waits) < timedelta(seconds=10)
    assert timedelta(minutes=4, seconds=50) < max(waits) < timedelta(minutes=5)
    assert runs[-1].available_at == MIDNIGHT + waits[0]
