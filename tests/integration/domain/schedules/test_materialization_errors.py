"""Errors of schedules during materialization."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.schedules.materialization import MaterializationResult
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import list_all_runs
from tests.support.factories.schedules import (
    DAY,
    EARLIER,
    MIDNIGHT,
    create_schedule,
    define_daily_schedule,
    get_schedule,
    materialize_due_fires,
    update_schedule_row,
)

pytestmark = pytest.mark.usefixtures("no_runs")


async def test_an_error_is_recorded_on_its_schedule_and_affects_no_other(
    sessions: Sessions,
) -> None:
    await define_daily_schedule(sessions)
    await create_schedule(sessions, "broken")
    await update_schedule_row(sessions, "broken", timezone="Mars/Olympus", next_fire_at=EARLIER)

    fires = await materialize_due_fires(sessions, now=MIDNIGHT)

    assert fires == MaterializationResult(runs=1, failed=1, broken=("broken",))
    broken = await get_schedule(sessions, "broken")
    assert broken.error is not None
    assert "Mars/Olympus" in broken.error
    assert broken.next_fire_at == EARLIER


async def test_a_broken_schedule_delays_no_other_and_recovers(sessions: Sessions) -> None:
    await create_schedule(sessions, "broken")
    await update_schedule_row(sessions, "broken", cron="nonsense", next_fire_at=EARLIER)
    await materialize_due_fires(sessions, now=EARLIER, limit=1)
    await define_daily_schedule(sessions)

    assert await materialize_due_fires(sessions, now=MIDNIGHT, limit=1) == MaterializationResult(
        runs=1
    )
    await update_schedule_row(sessions, "broken", cron="0 0 * * *")
    recovered = await materialize_due_fires(sessions, now=MIDNIGHT, limit=1)
    assert recovered.recorded == 2
    assert (await get_schedule(sessions, "broken")).error is None


async def test_a_schedule_whose_second_fire_fails_records_none_of_its_fires(
    sessions: Sessions,
) -> None:
    await create_schedule(sessions, "far")
    # The second fire, in the year 10000, is a date that cannot be represented.
    far = datetime(9998, 12, 30, tzinfo=UTC)
    await update_schedule_row(sessions, "far", next_fire_at=far, report_offset_days=1)

    fires = await materialize_due_fires(sessions, now=far + 2 * DAY)

    assert fires == MaterializationResult(failed=1, broken=("far",))
    assert await list_all_runs(sessions) == []
    assert (await get_schedule(sessions, "far")).next_fire_at == far


async def test_a_database_error_is_recorded_on_its_schedule_and_affects_no_other(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    for name in ("one", "bad", "two"):
        await create_schedule(sessions, name, report_offset_days=-1 if name == "one" else -2)
    bad = await get_schedule(sessions, "bad")
    async with engine.begin() as connection:
        await connection.execute(
            text(f"ALTER TABLE report_runs ADD CONSTRAINT failing CHECK (schedule_id <> {bad.id})")
        )
    try:
        fires = await materialize_due_fires(sessions, now=MIDNIGHT)
        again = await materialize_due_fires(sessions, now=MIDNIGHT)
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE report_runs DROP CONSTRAINT failing"))

    assert fires == MaterializationResult(runs=2, failed=1, broken=("bad",))
    assert again == MaterializationResult(failed=1)
    assert "failing" in ((await get_schedule(sessions, "bad")).error or "")
