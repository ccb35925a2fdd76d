"""Is somebody told when a report is late, with every scheduler dead?"""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_platform.postgres.engine import Sessions
from tests.integration.api.conftest import MakeDay
from tests.support.schedules import define
from tests.support.shop import add_order, open_shop

DAY = timedelta(days=1)
NOW = datetime.now(UTC)
TODAY = NOW.date()


@pytest.fixture
async def promised(api: httpx.AsyncClient, engine: AsyncEngine, sessions: Sessions) -> None:
    """Let there be orders for four days, of which a schedule has seen the last three begin."""
    await open_shop(engine)
    await define(sessions, now=NOW)
    async with engine.begin() as connection:
        await add_order(connection, created_at=NOW - 4 * DAY)
        await connection.execute(
            text("UPDATE schedules SET created_at = :at"),
            {"at": datetime.combine(TODAY - 3 * DAY, NOW.min.time(), UTC) + timedelta(seconds=1)},
        )


@pytest.mark.usefixtures("promised")
async def test_a_day_that_is_not_sealed_in_time_is_late_everywhere(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    # Of yesterday nothing is said: its report may be due just now.
    late, done = TODAY - 3 * DAY, TODAY - 2 * DAY
    await make_day(str(done))

    with structlog.testing.capture_logs() as logged:
        ready = await api.get("/readyz")
        metrics = (await api.get("/metrics")).text
    days = (await api.get("/report/days", params={"from": str(TODAY - 9 * DAY)})).json()["days"]

    assert ready.status_code == 200
    assert ready.json()["late_days"][0] == str(late)
    assert str(done) not in ready.json()["late_days"]
    number = next(line for line in metrics.splitlines() if line.startswith("daybook_late_days"))
    assert float(number.split()[1]) == len(ready.json()["late_days"])
    told = {day["report_date"]: day for day in days}
    assert (told[str(late)]["late"], told[str(late)]["state"]) == (True, "absent")
    assert told[str(late)]["due_at"] == f"{late + DAY}T00:00:00Z"
    assert not told[str(done)]["late"]
    assert not any(told[str(TODAY - n * DAY)]["late"] for n in (0, 4, 5, 8))
    (line,) = [line for line in logged if line.get("report_date") == str(late)]
    assert (line["event"], line["log_level"]) == ("report late", "error")


@pytest.mark.usefixtures("promised")
async def test_a_report_that_comes_after_all_is_late_no_more(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    late = TODAY - 3 * DAY
    before = (await api.get("/readyz")).json()["late_days"]
    await make_day(str(late))

    with structlog.testing.capture_logs() as logged:
        after = (await api.get("/readyz")).json()["late_days"]

    assert str(late) in before
    assert str(late) not in after
    assert "report no longer late" in [line["event"] for line in logged]


async def test_without_orders_or_a_schedule_nothing_is_late(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await open_shop(engine)
    async with engine.begin() as connection:
        await add_order(connection, created_at=NOW - 900 * DAY)

    assert (await api.get("/readyz")).json()["late_days"] == []
