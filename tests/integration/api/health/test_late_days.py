"""Integration tests of late reports in readiness, metrics, days and log."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_platform.postgres.sessions import Sessions
from tests.integration.api.conftest import MakeDay
from tests.support.factories.schedules import define_daily_schedule
from tests.support.factories.shop import create_order, reset_shop

DAY = timedelta(days=1)


@pytest.fixture
def today(one_day: None) -> datetime:
    """Return the first instant of the current day."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
async def daily_schedule(
    api: httpx.AsyncClient, engine: AsyncEngine, sessions: Sessions, today: datetime
) -> None:
    """Insert an order of four days ago, and a schedule that has existed for three days."""
    await reset_shop(engine)
    await define_daily_schedule(sessions, now=datetime.now(UTC))
    async with engine.begin() as connection:
        await create_order(connection, created_at=today - 4 * DAY)
        await connection.execute(
            text("UPDATE schedules SET created_at = :at"),
            {"at": today - 3 * DAY + timedelta(seconds=1)},
        )


@pytest.mark.usefixtures("daily_schedule")
async def test_a_day_that_is_not_sealed_in_time_is_late_everywhere(
    api: httpx.AsyncClient, make_day: MakeDay, today: datetime
) -> None:
    # Nothing is asserted about yesterday, whose report may be due at this moment.
    current = today.date()
    late, sealed = current - 3 * DAY, current - 2 * DAY
    await make_day(str(sealed))

    with structlog.testing.capture_logs() as logged:
        ready = await api.get("/readyz")
        metrics = (await api.get("/metrics")).text
    days = (await api.get("/report/days", params={"from": str(current - 9 * DAY)})).json()["days"]

    assert ready.status_code == 200
    assert ready.json()["late_days"][0] == str(late)
    assert str(sealed) not in ready.json()["late_days"]
    number = next(line for line in metrics.splitlines() if line.startswith("daybook_late_days"))
    assert float(number.split()[1]) == len(ready.json()["late_days"])
    listed = {day["report_date"]: day for day in days}
    assert (listed[str(late)]["late"], listed[str(late)]["state"]) == (True, "absent")
    assert listed[str(late)]["due_at"] == f"{late + DAY}T00:00:00Z"
    assert not listed[str(sealed)]["late"]
    assert not any(listed[str(current - n * DAY)]["late"] for n in (0, 4, 5, 8))
    (line,) = [line for line in logged if line.get("report_date") == str(late)]
    assert (line["event"], line["log_level"]) == ("report late", "error")


@pytest.mark.usefixtures("daily_schedule")
async def test_a_report_that_is_sealed_after_its_due_time_is_no_longer_late(
    api: httpx.AsyncClient, make_day: MakeDay, today: datetime
) -> None:
    late = today.date() - 3 * DAY
    before = (await api.get("/readyz")).json()["late_days"]
    await make_day(str(late))

    with structlog.testing.capture_logs() as logged:
        after = (await api.get("/readyz")).json()["late_days"]

    assert str(late) in before
    assert str(late) not in after
    assert "report no longer late" in [line["event"] for line in logged]


async def test_without_orders_or_a_schedule_nothing_is_late(
    api: httpx.AsyncClient, engine: AsyncEngine, today: datetime
) -> None:
    await reset_shop(engine)
    async with engine.begin() as connection:
        await create_order(connection, created_at=today - 900 * DAY)

    assert (await api.get("/readyz")).json()["late_days"] == []
