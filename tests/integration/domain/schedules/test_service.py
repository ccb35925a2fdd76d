"""Changes of schedules by users lose no fire and repeat none."""

from datetime import date, datetime, timedelta
from typing import Any

import pytest

from daybook_domain.errors import Invalid
from daybook_domain.runs.models import RunTrigger
from daybook_domain.schedules import service
from daybook_domain.schedules.errors import (
    ScheduleChanged,
    ScheduleFromSettings,
    ScheduleNameTaken,
    ScheduleNotFound,
)
from daybook_domain.schedules.materialization import MaterializationResult
from daybook_domain.schedules.models import Catchup, Overlap
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import list_all_runs
from tests.support.factories.schedules import (
    DAY,
    EARLIER,
    MIDNIGHT,
    create_schedule,
    define_daily_schedule,
    edit_schedule,
    get_schedule,
    get_schedule_id,
    list_fire_outcomes,
    materialize_due_fires,
    pause_schedule,
    remove_schedule,
)

pytestmark = pytest.mark.usefixtures("no_runs")

HOUR = timedelta(hours=1)
VERSION_1 = frozenset({1})


async def test_a_new_schedule_fires_after_its_creation(sessions: Sessions) -> None:
    added = await create_schedule(sessions, cron="0 9 * * MON-FRI", timezone="Asia/Yekaterinburg")

    assert added.next_fire_at == datetime.fromisoformat("2026-03-02T04:00Z")
    assert (added.enabled, added.version, added.overlap) == (True, 1, Overlap.BUFFER_ONE)


@pytest.mark.parametrize(
    ("values", "field", "problem"),
    [
        ({"cron": "61 * * * *"}, "cron", "minute: 61 is not 0-59"),
        (
            {"cron": "* 2 * MAR 7L", "timezone": "Europe/Berlin"},
            "cron",
            "clock changes skip all of its times",
        ),
        ({"timezone": "Europe/Berln"}, "timezone", "is it Europe/Berlin"),
        ({"timezone": "../etc/passwd"}, "timezone", "is not an IANA time zone"),
        ({"report_offset_days": 1}, "report_offset_days", "1 is not -3660 to 0"),
        ({"catchup_window": 32 * DAY}, "catchup_window_seconds", "is not 0-2678400"),
        ({"jitter": timedelta(days=2)}, "jitter_seconds", "is not 0-86400"),
        ({"jitter": timedelta(seconds=-1)}, "jitter_seconds", "-1 is not 0-86400"),
    ],
)
async def test_an_invalid_definition_is_rejected_by_create_and_by_change(
    sessions: Sessions, values: dict[str, Any], field: str, problem: str
) -> None:
    existing = await create_schedule(sessions)

    with pytest.raises(Invalid, match=problem) as creating:
        await create_schedule(sessions, "bad", **values)
    with pytest.raises(Invalid, match=problem) as changing:
        await edit_schedule(sessions, existing, **values)

    assert (creating.value.field, changing.value.field) == (field, field)


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "a\x00b"])
async def test_a_name_with_outer_spaces_or_control_characters_is_rejected(
    sessions: Sessions, name: str
) -> None:
    with pytest.raises(Invalid):
        await create_schedule(sessions, name)


async def test_a_name_is_unique_among_schedules_that_are_not_removed(sessions: Sessions) -> None:
    first, other = await create_schedule(sessions), await create_schedule(sessions, "other")
    for name in ("added", "daily"):
        with pytest.raises(ScheduleNameTaken):
            await create_schedule(sessions, name)
        with pytest.raises(ScheduleNameTaken):
            await edit_schedule(sessions, other, name=name)

    await remove_schedule(sessions, first)

    assert (await create_schedule(sessions)).id != first.id


async def test_a_change_takes_effect_with_the_next_fire(sessions: Sessions) -> None:
    added = await create_schedule(sessions)
    now = MIDNIGHT + DAY + 3 * HOUR

    changed = await edit_schedule(sessions, added, cron="0 * * * *", report_offset_days=-2, now=now)

    runs = await list_all_runs(sessions)
    assert [(run.scheduled_for, run.report_date) for run in runs] == [
        (MIDNIGHT, date(2026, 3, 1)),
        (MIDNIGHT + DAY, date(2026, 3, 2)),
    ]
    assert (changed.next_fire_at, changed.version) == (now + HOUR, 2)


async def test_a_change_of_policy_moves_no_fire(sessions: Sessions) -> None:
    added = await create_schedule(sessions)

    changed = await edit_schedule(sessions, added, overlap=Overlap.SKIP, catchup=Catchup.NONE)

    assert changed.next_fire_at == added.next_fire_at
    assert (changed.overlap, changed.catchup) == (Overlap.SKIP, Catchup.NONE)


async def test_a_change_to_equal_values_keeps_the_version(sessions: Sessions) -> None:
    added = await create_schedule(sessions)

    assert (await edit_schedule(sessions, added, cron=added.cron)).version == added.version


async def test_the_second_of_two_concurrent_changes_is_rejected(sessions: Sessions) -> None:
    added = await create_schedule(sessions)
    await edit_schedule(sessions, added, cron="0 1 * * *", versions=VERSION_1)

    with pytest.raises(ScheduleChanged):
        await edit_schedule(sessions, added, cron="0 2 * * *", versions=VERSION_1)
    with pytest.raises(ScheduleChanged):
        await remove_schedule(sessions, added, versions=VERSION_1)

    assert (await get_schedule(sessions, "added")).cron == "0 1 * * *"


async def test_a_fire_does_not_change_the_version(sessions: Sessions) -> None:
    added = await create_schedule(sessions)
    await materialize_due_fires(sessions, now=MIDNIGHT)

    assert (
        await edit_schedule(sessions, added, cron="0 1 * * *", versions=VERSION_1, now=MIDNIGHT)
    ).version == 2


async def test_the_settings_schedule_can_be_paused_but_not_edited(sessions: Sessions) -> None:
    daily = await define_daily_schedule(sessions)

    with pytest.raises(ScheduleFromSettings, match="DAYBOOK_DAILY_CRON"):
        await edit_schedule(sessions, daily, cron="0 1 * * *")
    with pytest.raises(ScheduleFromSettings, match="DAYBOOK_DAILY_CRON"):
        await remove_schedule(sessions, daily)

    assert not (await pause_schedule(sessions, daily)).enabled


async def test_a_removed_schedule_fires_no_more_and_its_fires_stay_in_the_ledger(
    sessions: Sessions,
) -> None:
    added = await create_schedule(sessions)

    await remove_schedule(sessions, added)

    assert await materialize_due_fires(sessions, now=MIDNIGHT + 3 * DAY) == MaterializationResult()
    assert await list_fire_outcomes(sessions, added) == ["pending"]
    with pytest.raises(ScheduleNotFound):
        await pause_schedule(sessions, added)


async def test_a_trigger_requests_the_date_of_a_fire_now_without_recording_a_fire(
    sessions: Sessions,
) -> None:
    added = await create_schedule(sessions, timezone="Asia/Tokyo")
    async with sessions.begin() as session:
        requested = await service.trigger(
            session, get_schedule_id(added), timezone="UTC", now=EARLIER
        )

    assert requested.run.report_date == date(2026, 3, 1)
    assert (requested.run.trigger, requested.run.schedule_id) == (RunTrigger.MANUAL, added.id)
    assert await list_fire_outcomes(sessions, added) == []
    assert (await get_schedule(sessions, "added")).next_fire_at == added.next_fire_at
