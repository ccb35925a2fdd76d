"""Integration tests of GET /schedules/taskiq."""

import httpx

from daybook_domain.schedules import taskiq_sync
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.schedules import MIDNIGHT


async def test_an_invalid_taskiq_entry_is_listed_with_its_problem(
    api: httpx.AsyncClient, sessions: Sessions
) -> None:
    good = (
        b'{"task_name": "reports.build", "labels": {}, "args": [], "kwargs": {}, "cron": "@daily"}'
    )
    async with sessions.begin() as session:
        await taskiq_sync.sync(
            session,
            {"a": good, "b": b"{", "c": good},
            redis_epoch="m",
            timezone="UTC",
            now=MIDNIGHT,
        )

    first_page = (await api.get("/schedules/taskiq?limit=2")).json()
    second_page = (await api.get(f"/schedules/taskiq?after={first_page['next']}")).json()
    broken = (await api.get("/schedules/taskiq?broken=true")).json()["entries"]

    assert [entry["id"] for entry in first_page["entries"] + second_page["entries"]] == [
        "a",
        "b",
        "c",
    ]
    assert second_page["next"] is None
    assert [(entry["id"], entry["schedule_id"]) for entry in broken] == [("b", None)]
    assert "cannot be parsed" in broken[0]["problem"]
    (schedule, _) = (await api.get("/schedules")).json()["schedules"]
    assert (schedule["name"], schedule["origin"]) == ("a", "taskiq")
