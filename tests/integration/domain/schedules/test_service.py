"""What people do to schedules loses no fire and repeats none."""

import asyncio
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select

from daybook_domain.errors import Invalid
from daybook_domain.runs import claims, retries
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_domain.schedules import queries, retention, service
from daybook_domain.schedules.errors import (
    ScheduleChanged,
    ScheduleFromSettings,
    ScheduleNameTaken,
    ScheduleNotFound,
    ScheduleNotPaused,
)
from daybook_domain.schedules.failure_pauses import pause_after_failure
from daybook_domain.schedules.materialization import MaterializationResult
from daybook_domain.schedules.models import Catchup, Overlap, Schedule
from daybook_domain.schedules.queries import FireOutcome
from daybook_domain.schedules.service import ResumeMode
from daybook_platform.postgres.engine import Sessions
from tests.support.locks import somebody_waits
from tests.support.runs import everything, pending, running
from tests.support.schedules import DAY, EARLIER, MIDNIGHT, add, change, define, find, materialise

pytestmark = pytest.mark.usefixtures("no_runs")

HOUR = timedelta(hours=1)
FIRST = frozenset({1})


def key(schedule: Schedule) -> int:
    assert schedule.id is not None
    return schedule.id


async def edit(
    sessions: Sessions,
    schedule: Schedule,
    *,
    now: datetime = EARLIER,
    versions: frozenset[int] | None = None,
    **changes: Any,
) -> Schedule:
    async with sessions.begin() as session:
        return await service.change(
            session, key(schedule), changes=changes, versions=versions, now=now
        )


async def pause(sessions: Sessions, schedule: Schedule, *, now: datetime = EARLIER) -> Schedule:
    async with sessions.begin() as session:
        return await service.pause(session, key(schedule), note="freeze", now=now)


async def resume(
    sessions: Sessions, schedule: Schedule, *, mode: ResumeMode, now: datetime
) -> Schedule:
    async with sessions.begin() as session:
        return await service.resume(session, key(schedule), mode=mode, now=now)


async def remove(
    sessions: Sessions, schedule: Schedule, *, versions: frozenset[int] | None = None
) -> None:
    async with sessions.begin() as session:
        await service.remove(session, key(schedule), versions=versions, now=MIDNIGHT)


async def outcomes(sessions: Sessions, schedule: Schedule) -> list[str]:
    """Return what became of the fires, oldest first."""
    async with sessions() as session:
        fires = await queries.list_fires(session, key(schedule), limit=100)
    return [fire.outcome.value for fire in reversed(fires)]


async def test_a_schedule_fires_from_its_creation_on(sessions: Sessions) -> None:
    added = await add(sessions, cron="0 9 * * MON-FRI", timezone="Asia/Yekaterinburg")

    assert added.next_fire_at == datetime.fromisoformat("2026-03-02T04:00Z")
    assert (added.enabled, added.version, added.overlap) == (True, 1, Overlap.BUFFER_ONE)


@pytest.mark.parametrize(
    ("said", "field", "why"),
    [
        ({"cron": "61 * * * *"}, "cron", "minute: 61 is not 0-59"),
        ({"cron": "* 2 * MAR 7L", "timezone": "Europe/Berlin"}, "cron", "always jump over it"),
        ({"timezone": "Europe/Berln"}, "timezone", "is it Europe/Berlin"),
        ({"timezone": "../etc/passwd"}, "timezone", "is not an IANA time zone"),
        ({"report_offset_days": 1}, "report_offset_days", "1 is not -3660 to 0"),
        ({"catchup_window": 32 * DAY}, "catchup_window_seconds", "is not 0-2678400"),
        ({"jitter": timedelta(days=2)}, "jitter_seconds", "is not 0-86400"),
        ({"jitter": timedelta(seconds=-1)}, "jitter_seconds", "-1 is not 0-86400"),
    ],
)
async def test_what_cannot_be_is_refused_when_added_and_when_changed(
    sessions: Sessions, said: dict[str, Any], field: str, why: str
) -> None:
    there = await add(sessions)

    with pytest.raises(Invalid, match=why) as adding:
        await add(sessions, "bad", **said)
    with pytest.raises(Invalid, match=why) as editing:
        await edit(sessions, there, **said)

    assert (adding.value.field, editing.value.field) == (field, field)


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "a\x00b"])
async def test_a_name_that_nobody_could_type_is_refused(sessions: Sessions, name: str) -> None:
    with pytest.raises(Invalid):
        await add(sessions, name)


async def test_a_name_is_given_once_at_a_time(sessions: Sessions) -> None:
    first, other = await add(sessions), await add(sessions, "other")
    for name in ("added", "daily"):
        with pytest.raises(ScheduleNameTaken):
            await add(sessions, name)
        with pytest.raises(ScheduleNameTaken):
            await edit(sessions, other, name=name)

    await remove(sessions, first)

    assert (await add(sessions)).id != first.id


async def test_a_change_counts_from_the_next_fire_on(sessions: Sessions) -> None:
    added = await add(sessions)
    now = MIDNIGHT + DAY + 3 * HOUR

    changed = await edit(sessions, added, cron="0 * * * *", report_offset_days=-2, now=now)

    runs = await everything(sessions)
    assert [(run.scheduled_for, run.report_date) for run in runs] == [
        (MIDNIGHT, date(2026, 3, 1)),
        (MIDNIGHT + DAY, date(2026, 3, 2)),
    ]
    assert (changed.next_fire_at, changed.version) == (now + HOUR, 2)


async def test_a_change_of_policy_moves_no_fire(sessions: Sessions) -> None:
    added = await add(sessions)

    changed = await edit(sessions, added, overlap=Overlap.SKIP, catchup=Catchup.NONE)

    assert changed.next_fire_at == added.next_fire_at
    assert (changed.overlap, changed.catchup) == (Overlap.SKIP, Catchup.NONE)


async def test_a_change_that_changes_nothing_is_none(sessions: Sessions) -> None:
    added = await add(sessions)

    assert (await edit(sessions, added, cron=added.cron)).version == added.version


async def test_of_two_who_change_what_they_read_the_second_is_refused(sessions: Sessions) -> None:
    added = await add(sessions)
    await edit(sessions, added, cron="0 1 * * *", versions=FIRST)

    with pytest.raises(ScheduleChanged):
        await edit(sessions, added, cron="0 2 * * *", versions=FIRST)
    with pytest.raises(ScheduleChanged):
        await remove(sessions, added, versions=FIRST)

    assert (await find(sessions, "added")).cron == "0 1 * * *"


async def test_a_fire_does_not_count_as_a_change(sessions: Sessions) -> None:
    added = await add(sessions)
    await materialise(sessions, now=MIDNIGHT)

    assert (
        await edit(sessions, added, cron="0 1 * * *", versions=FIRST, now=MIDNIGHT)
    ).version == 2


async def test_the_settings_schedule_can_be_paused_but_not_edited(sessions: Sessions) -> None:
    daily = await define(sessions)

    with pytest.raises(ScheduleFromSettings, match="DAYBOOK_DAILY_CRON"):
        await edit(sessions, daily, cron="0 1 * * *")
    with pytest.raises(ScheduleFromSettings, match="DAYBOOK_DAILY_CRON"):
        await remove(sessions, daily)

    assert not (await pause(sessions, daily)).enabled


async def test_a_removed_schedule_fires_no_more_and_is_remembered_by_the_ledger(
    sessions: Sessions,
) -> None:
    added = await add(sessions)

    await remove(sessions, added)

    assert await materialise(sessions, now=MIDNIGHT + 3 * DAY) == MaterializationResult()
    assert await outcomes(sessions, added) == ["pending"]
    with pytest.raises(ScheduleNotFound):
        await pause(sessions, added)


async def test_what_was_due_before_a_pause_is_work_and_what_comes_after_is_skipped(
    sessions: Sessions,
) -> None:
    added = await add(sessions)

    paused = await pause(sessions, added, now=MIDNIGHT + HOUR)
    await materialise(sessions, now=MIDNIGHT + 2 * DAY)
    resumed = await resume(sessions, added, mode=ResumeMode.FROM_NOW, now=MIDNIGHT + 3 * DAY + HOUR)

    assert await outcomes(sessions, added) == ["pending", *["skipped: paused"] * 3]
    assert (paused.note, paused.paused_at) == ("freeze", MIDNIGHT + HOUR)
    assert (resumed.enabled, resumed.note, resumed.paused_at) == (True, None, None)
    assert resumed.next_fire_at == MIDNIGHT + 4 * DAY


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, ["skipped: paused", "pending", "pending", "pending"]),
        ({"catchup": Catchup.LATEST}, [*["skipped: paused"] * 3, "pending"]),
        ({"catchup": Catchup.NONE}, ["skipped: paused"] * 4),
        (
            {"overlap": Overlap.SKIP},
            ["skipped: paused", "pending", "skipped: paused", "skipped: paused"],
        ),
    ],
)
async def test_catching_up_makes_up_for_the_pause_as_the_policy_says(
    sessions: Sessions, policy: dict[str, Any], expected: list[str]
) -> None:
    added = await add(sessions, catchup_window=3 * DAY, **policy)
    await pause(sessions, added)
    await materialise(sessions, now=MIDNIGHT + DAY)

    await resume(sessions, added, mode=ResumeMode.CATCHUP, now=MIDNIGHT + 3 * DAY + HOUR)

    assert await outcomes(sessions, added) == expected


async def test_catching_up_leaves_alone_what_somebody_is_just_retrying(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    added = await add(sessions)
    await pause(sessions, added)
    await materialise(sessions, now=MIDNIGHT)
    (skipped,) = await everything(sessions)

    async with sessions.begin() as session:
        await retries.retry(session, skipped.id, now=MIDNIGHT + HOUR)
        catching_up = asyncio.create_task(
            resume(sessions, added, mode=ResumeMode.CATCHUP, now=MIDNIGHT + HOUR)
        )
        await somebody_waits(engine)
    await catching_up

    assert [run.id for run in await everything(sessions)] == [skipped.id]


async def test_catching_up_leaves_an_earlier_pause_alone(sessions: Sessions) -> None:
    added = await add(sessions)
    await pause(sessions, added)
    await resume(sessions, added, mode=ResumeMode.FROM_NOW, now=MIDNIGHT + HOUR)
    await pause(sessions, added, now=MIDNIGHT + 2 * HOUR)

    await resume(sessions, added, mode=ResumeMode.CATCHUP, now=MIDNIGHT + DAY + HOUR)

    assert await outcomes(sessions, added) == ["skipped: paused", "pending"]


async def test_only_what_is_paused_can_be_resumed(sessions: Sessions) -> None:
    added = await add(sessions)

    with pytest.raises(ScheduleNotPaused):
        await resume(sessions, added, mode=ResumeMode.CATCHUP, now=MIDNIGHT)


async def test_a_trigger_asks_for_the_date_of_a_fire_now_and_is_none(sessions: Sessions) -> None:
    added = await add(sessions, timezone="Asia/Tokyo")
    async with sessions.begin() as session:
        requested = await service.trigger(session, key(added), timezone="UTC", now=EARLIER)

    assert requested.run.report_date == date(2026, 3, 1)
    assert (requested.run.trigger, requested.run.schedule_id) == (RunTrigger.MANUAL, added.id)
    assert await outcomes(sessions, added) == []
    assert (await find(sessions, "added")).next_fire_at == added.next_fire_at


@pytest.mark.parametrize("work", ["its own", "a run that it joined"])
async def test_a_schedule_pauses_itself_when_its_run_has_failed(
    sessions: Sessions, work: str
) -> None:
    added = await add(sessions, pause_on_failure=True)
    careless = await add(sessions, "careless")
    if work != "its own":
        await pending(sessions, day=date(2026, 3, 1))
    await materialise(sessions, now=MIDNIGHT)
    run = await _claimed(sessions)

    async with sessions.begin() as session:
        failed = await retries.record_failure(
            session,
            run.id,
            fence=run.fence,
            error_code="broken",
            error_detail="",
            retryable=False,
            now=MIDNIGHT,
        )
        assert failed is not None
        await pause_after_failure(session, failed, now=MIDNIGHT)

    paused = await find(sessions, "added")
    assert not paused.enabled
    assert paused.note == f"paused itself: run {run.id} of 2026-03-01 has failed"
    assert (await find(sessions, careless.name)).enabled
    await resume(sessions, added, mode=ResumeMode.FROM_NOW, now=MIDNIGHT)


async def _claimed(sessions: Sessions) -> ReportRun:
    async with sessions.begin() as session:
        run = (await session.exec(select(ReportRun).where(ReportRun.state == "pending"))).one()
        run.state = RunState.QUEUED
        await session.flush()
        claimed = await claims.claim_next(session, run.id, worker="w1", now=MIDNIGHT, lease=HOUR)
    assert claimed is not None
    return claimed


async def test_the_ledger_is_told_by_outcome_range_and_page(sessions: Sessions) -> None:
    added = await add(sessions, cron="0 * * * *", catchup=Catchup.LATEST)
    await materialise(sessions, now=MIDNIGHT + 30 * HOUR)

    async with sessions() as session:

        async def due(**asked: Any) -> list[datetime]:
            found = await queries.list_fires(session, key(added), **{"limit": 100, **asked})
            return [fire.run.scheduled_for for fire in found if fire.run.scheduled_for]

        assert len(await due()) == 31
        assert await due(outcomes=[FireOutcome.PENDING]) == [MIDNIGHT + 30 * HOUR]
        assert len(await due(outcomes=[FireOutcome.MISSED])) == 30
        assert len(await due(outcomes=[FireOutcome.MISSED_CATCHUP, FireOutcome.PENDING])) == 31
        assert await due(outcomes=[FireOutcome.MISSED_OUTSIDE_WINDOW]) == []
        page = await due(limit=2, first=MIDNIGHT, before=MIDNIGHT + 5 * HOUR)
        assert page == [MIDNIGHT + 4 * HOUR, MIDNIGHT + 3 * HOUR]


async def test_what_is_old_and_not_needed_is_forgotten_a_little_at_a_time(
    sessions: Sessions,
) -> None:
    added = await add(sessions, catchup=Catchup.NONE)
    gone = await add(sessions, "gone", catchup=Catchup.NONE, report_offset_days=-5)
    now = MIDNIGHT + 20 * DAY + HOUR
    await materialise(sessions, now=now)
    await remove(sessions, gone)
    # All of this was written down today; let it have been then.
    async with sessions.begin() as session:
        for run in (await session.exec(select(ReportRun))).all():
            run.finished_at = run.scheduled_for

    pruned = []
    for _ in range(3):
        async with sessions.begin() as session:
            pruned.append(await retention.prune(session, before=MIDNIGHT + 15 * DAY, limit=15))

    kept = [run for run in await everything(sessions) if run.schedule_id == added.id]
    # Those of the last seven days before are needed: they cannot be repeated.
    assert [run.scheduled_for for run in kept] == [MIDNIGHT + k * DAY for k in range(8, 21)]
    assert pruned == [15, 8, 0]


async def test_a_running_run_and_the_maker_of_a_revision_are_not_forgotten(
    sessions: Sessions,
) -> None:
    await running(sessions)

    async with sessions.begin() as session:
        assert await retention.prune(session, before=MIDNIGHT + 900 * DAY, limit=10) == 0


async def test_a_broken_schedule_recovers_by_a_change(sessions: Sessions) -> None:
    daily = await define(sessions)
    await change(sessions, cron="nonsense", next_fire_at=EARLIER)
    await materialise(sessions, now=MIDNIGHT)
    assert (await find(sessions, daily.name)).error is not None

    mended = await define(sessions, now=MIDNIGHT)

    assert (mended.error, mended.next_fire_at) == (None, MIDNIGHT + DAY)
