"""A schedule that cannot fire can be read, corrected, paused, resumed and removed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from daybook_domain.schedules import service
from daybook_domain.schedules.errors import ScheduleCannotFire
from daybook_domain.schedules.fire_planning import MAX_FIRES_PER_SCHEDULE, find_report_date
from daybook_domain.schedules.materialization import MaterializationResult, materialize
from daybook_domain.schedules.models import Schedule
from daybook_domain.schedules.service import ResumeMode
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import list_all_runs
from tests.support.factories.schedules import (
    DAY,
    EARLIER,
    MIDNIGHT,
    create_schedule,
    edit_schedule,
    get_schedule,
    get_schedule_id,
    list_fire_outcomes,
    materialize_due_fires,
    pause_schedule,
    remove_schedule,
    resume_schedule,
    update_schedule_row,
)

pytestmark = pytest.mark.usefixtures("no_runs")

UNKNOWN_ZONE = {"timezone": "Mars/Olympus"}
BROKEN = [
    pytest.param(UNKNOWN_ZONE, id="zone that tzdata has dropped"),
    pytest.param({"timezone": "../etc/passwd"}, id="not the name of a zone"),
    pytest.param({"timezone": "America"}, id="a directory of zones"),
    pytest.param({"cron": "nonsense"}, id="malformed cron"),
    pytest.param({"report_offset_days": -1_000_000}, id="date before the calendar"),
    pytest.param({"report_offset_days": 2**31 - 1}, id="overflow"),
    pytest.param({"next_fire_at": datetime(1, 1, 1, tzinfo=UTC)}, id="due since the year 1"),
]


async def break_schedule(sessions: Sessions, values: dict[str, Any]) -> Schedule:
    """Return a schedule that has been due since midnight, and whose fires cannot be recorded."""
    await create_schedule(sessions)
    await update_schedule_row(sessions, "added", **{"next_fire_at": MIDNIGHT, **values})
    return await get_schedule(sessions, "added")


@pytest.mark.parametrize("values", BROKEN)
async def test_a_broken_schedule_can_be_paused_resumed_and_removed(
    sessions: Sessions, values: dict[str, Any]
) -> None:
    broken = await break_schedule(sessions, values)

    paused = await pause_schedule(sessions, broken, now=MIDNIGHT)
    resumed = await resume_schedule(sessions, broken, mode=ResumeMode.CATCHUP, now=MIDNIGHT + DAY)
    await remove_schedule(sessions, broken)

    assert (paused.enabled, paused.note, resumed.enabled) == (False, "freeze", True)
    assert paused.error is not None
    removed = await get_schedule(sessions, "added")
    assert (removed.deleted_at, removed.next_fire_at) == (MIDNIGHT, None)
    assert removed.error == paused.error
    assert await list_all_runs(sessions) == []


@pytest.mark.parametrize("values", BROKEN)
async def test_a_broken_schedule_can_be_renamed(sessions: Sessions, values: dict[str, Any]) -> None:
    broken = await break_schedule(sessions, values)

    corrected = await edit_schedule(
        sessions,
        broken,
        name="renamed",
        cron="0 6 * * *",
        timezone="Asia/Tokyo",
        report_offset_days=-1,
        now=MIDNIGHT,
    )

    assert (corrected.name, corrected.error) == ("renamed", None)


async def test_fires_that_were_due_before_a_pause_are_recorded_once_the_schedule_is_corrected(
    sessions: Sessions,
) -> None:
    broken = await break_schedule(sessions, UNKNOWN_ZONE)
    await pause_schedule(sessions, broken, now=MIDNIGHT + timedelta(hours=1))

    await edit_schedule(sessions, broken, timezone="UTC", now=MIDNIGHT + 2 * DAY)
    await materialize_due_fires(sessions, now=MIDNIGHT + 2 * DAY)

    paused = "skipped: paused"
    assert await list_fire_outcomes(sessions, broken) == ["pending", paused, paused]


async def test_a_correction_makes_up_for_at_most_the_longest_catchup_window(
    sessions: Sessions,
) -> None:
    year_1 = datetime(1, 1, 1, tzinfo=UTC)
    values = {"cron": "nonsense", "next_fire_at": year_1, "defined_at": year_1}
    broken = await break_schedule(sessions, values)

    corrected = await edit_schedule(sessions, broken, cron="0 0 * * *", now=MIDNIGHT)

    assert corrected.next_fire_at == MIDNIGHT - 31 * DAY


@pytest.mark.parametrize("values", [UNKNOWN_ZONE, {"report_offset_days": -1_000_000}])
async def test_a_trigger_of_a_schedule_without_a_report_date_is_refused(
    sessions: Sessions, values: dict[str, Any]
) -> None:
    broken = await break_schedule(sessions, values)

    async with sessions.begin() as session:
        with pytest.raises(ScheduleCannotFire, match="Correct its definition"):
            await service.trigger(session, get_schedule_id(broken), timezone="UTC", now=EARLIER)
    assert find_report_date(broken, MIDNIGHT) is None


@pytest.mark.parametrize("operation", ["change", "pause", "remove"])
async def test_an_operation_records_all_due_fires_however_many(
    sessions: Sessions, operation: str
) -> None:
    added = await create_schedule(sessions, cron="0 * * * *")
    count = 2 * MAX_FIRES_PER_SCHEDULE + 50
    now = EARLIER + count * timedelta(hours=1)
    await update_schedule_row(sessions, "added", catchup_window=31 * DAY)

    if operation == "change":
        await edit_schedule(sessions, added, cron="30 * * * *", now=now)
    elif operation == "pause":
        await pause_schedule(sessions, added, now=now)
    else:
        async with sessions.begin() as session:
            await service.remove(session, get_schedule_id(added), versions=None, now=now)

    recorded = {run.scheduled_for for run in await list_all_runs(sessions)}
    assert recorded == {EARLIER + timedelta(hours=k) for k in range(1, count + 1)}


async def test_a_removed_schedule_does_not_fire_even_if_it_has_a_due_time(
    sessions: Sessions,
) -> None:
    await remove_schedule(sessions, await create_schedule(sessions, "removed", now=MIDNIGHT))
    await update_schedule_row(sessions, "removed", next_fire_at=EARLIER)

    assert await materialize_due_fires(sessions, now=MIDNIGHT) == MaterializationResult()


async def test_the_schedule_that_has_been_due_longest_fires_first(sessions: Sessions) -> None:
    for name, hours in (("third", 1), ("second", 2), ("first", 3)):
        await create_schedule(sessions, name)
        await update_schedule_row(sessions, name, next_fire_at=MIDNIGHT - timedelta(hours=hours))

    for _ in range(2):
        async with sessions.begin() as session:
            # The index is in that order, so that a scan of it would be in order without asking.
            for setting in ("enable_indexscan", "enable_bitmapscan", "enable_indexonlyscan"):
                await session.execute(text(f"SET LOCAL {setting} = off"))
            await materialize(session, now=MIDNIGHT, limit=1)

    last_fires = {
        name: (await get_schedule(sessions, name)).last_fire_at for name in ("first", "third")
    }
    assert (last_fires["first"] is None, last_fires["third"]) == (False, None)
