"""Integration tests of /report/days."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.api.conftest import MakeDay

DAYS = "/report/days"


async def test_each_date_of_the_range_is_listed_with_its_state(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    await make_day("2026-03-01", rows=7)
    await make_day("2026-03-03", sealed=False)
    response = await api.get(f"{DAYS}?from=2026-02-28&to=2026-03-04")
    days = response.json()["days"]
    assert [(day["report_date"], day["state"]) for day in days] == [
        ("2026-02-28", "absent"),
        ("2026-03-01", "sealed"),
        ("2026-03-02", "absent"),
        ("2026-03-03", "provisional"),
        ("2026-03-04", "absent"),
    ]
    assert (days[1]["orders_count"], days[1]["products_count"]) == (7, 13)
    assert (days[0]["revision"], days[0]["sealed_at"]) == (0, None)


async def test_the_default_range_is_the_last_31_days(api: httpx.AsyncClient) -> None:
    before = datetime.now(UTC).date()
    days = [day["report_date"] for day in (await api.get(DAYS)).json()["days"]]
    after = datetime.now(UTC).date()
    assert len(days) == 31
    assert before.isoformat() <= days[-1] <= after.isoformat()


async def test_future_days_are_not_listed(api: httpx.AsyncClient) -> None:
    today = datetime.now(UTC).date()
    later = today + timedelta(days=5)
    days = (await api.get(f"{DAYS}?from={today}&to={later}")).json()["days"]
    assert 1 <= len(days) <= 2
    assert (await api.get(f"{DAYS}?from={later}")).json()["days"] == []


async def test_a_day_without_a_report_is_absent_as_in_the_list(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    await make_day("2026-03-01", revision=3)
    shown = (await api.get(f"{DAYS}/2026-03-01/")).json()
    absent = await api.get(f"{DAYS}/2026-03-02")
    assert (shown["state"], shown["revision"], shown["orders_count"]) == ("sealed", 3, 3)
    (listed,) = (await api.get(f"{DAYS}?from=2026-03-02&to=2026-03-02")).json()["days"]
    assert (absent.status_code, absent.json()) == (200, listed)
    assert (listed["state"], listed["revision"]) == ("absent", 0)


async def test_a_range_of_ten_years_is_accepted_and_a_longer_one_is_rejected(
    api: httpx.AsyncClient,
) -> None:
    ten_years = await api.get(f"{DAYS}?from=2000-01-01&to=2010-01-07")
    more = await api.get(f"{DAYS}?from=2000-01-01&to=2010-01-08")
    assert (ten_years.status_code, len(ten_years.json()["days"])) == (200, 3660)
    assert (more.status_code, "at most 3660" in more.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("?from=2026-03-02&to=2026-03-01", "`from` (2026-03-02) is after `to` (2026-03-01)"),
        ("?from=2026-13-01", "2026-13-01 is not a calendar date"),
        ("?to=", "is empty"),
        ("?since=2026-03-01", "is not a known field or parameter"),
        ("/2026-13-01", "2026-13-01 is not a calendar date"),
    ],
)
async def test_invalid_parameters_are_rejected_with_a_hint(
    api: httpx.AsyncClient, path: str, hint: str
) -> None:
    response = await api.get(f"{DAYS}{path}")
    assert response.status_code == 422
    assert hint in response.json()["detail"]
    assert response.json()["errors"][0]["pointer"] != "#"


@pytest.mark.parametrize(("minutes", "late"), [(1, False), (16, True)])
async def test_a_stale_day_shows_since_when_and_is_late_after_the_tolerance(
    api: httpx.AsyncClient, make_day: MakeDay, engine: AsyncEngine, minutes: int, *, late: bool
) -> None:
    await make_day("2026-03-01")
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE report_days SET stale_since = :at"), {"at": since})

    shown = (await api.get(f"{DAYS}/2026-03-01")).json()
    (listed,) = (await api.get(f"{DAYS}?from=2026-03-01&to=2026-03-01")).json()["days"]

    assert shown == listed
    assert (datetime.fromisoformat(shown["stale_since"]), shown["late"]) == (since, late)
