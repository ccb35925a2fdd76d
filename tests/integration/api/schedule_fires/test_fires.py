"""Integration tests of GET /schedules/{id}/fires."""

from datetime import UTC, datetime, timedelta

import httpx

from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.schedules import (
    MIDNIGHT,
    create_schedule,
    materialize_due_fires,
    update_schedule_row,
)

DAY = timedelta(days=1)


async def test_fires_are_listed_with_their_outcomes(
    api: httpx.AsyncClient, sessions: Sessions
) -> None:
    schedule = await create_schedule(sessions, timezone="Asia/Tokyo", catchup_window=DAY)
    await materialize_due_fires(sessions, now=MIDNIGHT + 3 * DAY)
    path = f"/schedules/{schedule.id}/fires"

    page = (await api.get(path, params={"limit": 2})).json()
    rest = (await api.get(path, params={"limit": 2, "before": page["next"]})).json()
    one_day = (await api.get(path, params={"from": "2026-03-03", "to": "2026-03-03"})).json()
    missed = (await api.get(path, params={"outcome": "missed"})).json()

    outcomes = [fire["outcome"] for fire in page["fires"] + rest["fires"]]
    assert outcomes == ["pending", "missed: outside window", "missed: outside window"]
    (fire,) = one_day["fires"]
    assert (fire["local"], fire["report_date"]) == ("2026-03-03T00:00:00+09:00", "2026-03-02")
    assert "outside the window" in fire["reason"]
    assert len(missed["fires"]) == 2


async def test_an_empty_list_of_fires_explains_why(
    api: httpx.AsyncClient, sessions: Sessions
) -> None:
    schedule = await create_schedule(sessions, cron="0 9 * * MON-FRI")
    path = f"/schedules/{schedule.id}/fires"

    async def note(day: str) -> str:
        response = await api.get(path, params={"from": day, "to": day})
        assert response.json()["fires"] == []
        return str(response.json()["note"])

    assert "No fire of '0 9 * * MON-FRI' in UTC was due in the range" in await note("2026-03-07")
    assert "was last defined at 2026-03-01" in await note("2026-02-27")
    assert "no scheduler has recorded them" in await note("2026-03-03")
    assert "in the future" in await note("2999-03-07")
    await update_schedule_row(sessions, "added", next_fire_at=datetime.now(UTC) + DAY)
    assert "DAYBOOK_LEDGER_DAYS" in await note("2026-03-03")
