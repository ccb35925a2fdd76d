"""Errors of schedules during materialization."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.schedules.materialization import MaterializationResult
from daybook_platform.postgres.engine import Sessions
from tests.support.runs import everything
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


async def test_an_error_is_recorded_on_its_schedule_and_affects_no_other(
    sessions: Sessions,
) -> None:
    await define(sessions)
    await add(sessions, "broken")
    await change(sessions, "broken", timezone="Mars/Olympus", next_fire_at=EARLIER)

    fires = await materialise(sessions, now=MIDNIGHT)

    assert fires == MaterializationResult(runs=1, failed=1, broken=("broken",))
    broken = await find(sessions, "broken")
    assert broken.error is not None
    assert "Mars/Olympus" in broken.error
    assert broken.next_fire_at == EARLIER


async def test_a_broken_schedule_delays_no_other_and_recovers(sessions: Sessions) -> None:
    await add(sessions, "broken")
    await change(sessions, "broken", cron="nonsense", next_fire_at=EARLIER)
    await materialise(sessions, now=EARLIER, limit=1)
    await define(sessions)

    assert await materialise(sessions, now=MIDNIGHT, limit=1) == MaterializationResult(runs=1)
    await change(sessions, "broken", cron="0 0 * * *")
    recovered = await materialise(sessions, now=MIDNIGHT, limit=1)
    assert recovered.recorded == 2
    assert (await find(sessions, "broken")).error is None


async def test_a_schedule_whose_second_fire_fails_records_none_of_its_fires(
    sessions: Sessions,
) -> None:
    await add(sessions, "far")
    # The second fire, in the year 10000, is a date that cannot be represented.
    far = datetime(9998, 12, 30, tzinfo=UTC)
    await change(sessions, "far", next_fire_at=far, report_offset_days=1)

    fires = await materialise(sessions, now=far + 2 * DAY)

    assert fires == MaterializationResult(failed=1, broken=("far",))
    assert await everything(sessions) == []
    assert (await find(sessions, "far")).next_fire_at == far


async def test_a_database_error_is_recorded_on_its_schedule_and_affects_no_other(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    for name in ("one", "bad", "two"):
        await add(sessions, name, report_offset_days=-1 if name == "one" else -2)
    bad = await find(sessions, "bad")
    async with engine.begin() as connection:
        await connection.execute(
            text(f"ALTER TABLE report_runs ADD CONSTRAINT failing CHECK (schedule_id <> {bad.id})")
        )
    try:
        fires = await materialise(sessions, now=MIDNIGHT)
        again = await materialise(sessions, now=MIDNIGHT)
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE report_runs DROP CONSTRAINT failing"))

    assert fires == MaterializationResult(runs=2, failed=1, broken=("bad",))
    assert again == MaterializationResult(failed=1)
    assert "failing" in ((await find(sessions, "bad")).error or "")
