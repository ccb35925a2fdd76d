"""Integration tests of /schedules."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.schedules import define_daily_schedule

DAY = timedelta(days=1)
WORKDAYS = {"name": "workdays", "cron": "0 9 * * MON-FRI", "timezone": "Asia/Yekaterinburg"}


async def create_schedule(api: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await api.post("/schedules", json={**WORKDAYS, **fields})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


async def test_a_schedule_is_created_and_returned_with_its_effective_values(
    api: httpx.AsyncClient,
) -> None:
    response = await api.post("/schedules", json={"name": "hourly", "cron": "@hourly"})

    created = response.json()
    assert (response.status_code, response.headers["etag"]) == (201, '"1"')
    assert response.headers["location"] == f"/schedules/{created['id']}"
    assert (
        created
        | {
            "timezone": "UTC",
            "report_offset_days": -1,
            "catchup": "all",
            "catchup_window_seconds": 604800,
            "overlap": "buffer_one",
            "jitter_seconds": 0,
            "pause_on_failure": False,
            "enabled": True,
            "origin": "api",
            "version": 1,
        }
        == created
    )
    assert datetime.fromisoformat(created["next_fire_at"]) > datetime.now(UTC) - timedelta(hours=1)
    shown = await api.get(f"/schedules/{created['id']}")
    assert (shown.json(), shown.headers["etag"]) == (created, '"1"')


@pytest.mark.parametrize(
    ("fields", "pointer", "why"),
    [
        ({"cron": "61 * * * *"}, "#/cron", "minute: 61 is not 0-59 (position 1)"),
        ({"cron": "0 0 30 2 *"}, "#/cron", "none of the months has a day 30"),
        ({"cron": "* * * *"}, "#/cron", "has 4 fields; expected five"),
        ({"cron": "* 2 * MAR 7L", "timezone": "Europe/Berlin"}, "#/cron", "clock changes skip all"),
        ({"timezone": "Mars/Olympus"}, "#/timezone", "is not an IANA time zone"),
        ({"report_offset_days": 1}, "#/report_offset_days", "less than or equal to 0"),
        ({"jitter_seconds": 90_000}, "#/jitter_seconds", "less than or equal to 86400"),
        ({"jitter_seconds": 100_000_000_000_000}, "#/jitter_seconds", "less than or equal to"),
        ({"catchup_window_seconds": 10**14}, "#/catchup_window_seconds", "less than or equal to"),
        ({"jitter_seconds": -1}, "#/jitter_seconds", "greater than or equal to 0"),
        ({"overlap": "queue"}, "#/overlap", "buffer_one"),
        ({"crom": "* * * * *"}, "#/crom", "is not a known field or parameter"),
        ({"name": ""}, "#/name", "expected a name"),
        ({"name": "a\x00"}, "#/name", "contains a NUL character (U+0000)"),
        ({"timezone": "UTC\x00"}, "#/timezone", "contains a NUL character (U+0000)"),
        ({"cron": "0 0 * * *\x00"}, "#/cron", "U+0000 is not a space (position 10)"),
    ],
)
async def test_an_invalid_field_is_rejected_by_name(
    api: httpx.AsyncClient, fields: dict[str, Any], pointer: str, why: str
) -> None:
    created = await create_schedule(api)

    responses = [
        await api.post("/schedules", json={**WORKDAYS, "name": "other", **fields}),
        await api.patch(f"/schedules/{created['id']}", json=fields, headers={"If-Match": '"1"'}),
    ]

    for response in responses:
        assert response.status_code == 422, response.text
        (error,) = response.json()["errors"]
        assert (error["location"], error["pointer"]) == ("body", pointer)
        assert why in error["detail"]


async def test_put_replaces_a_schedule_and_patch_changes_only_given_fields(
    api: httpx.AsyncClient,
) -> None:
    created = await create_schedule(api, jitter_seconds=60, overlap="skip")
    path, now = f"/schedules/{created['id']}", {"If-Match": "*"}

    patched = (await api.patch(path, json={"catchup": "none"}, headers=now)).json()
    put = (await api.put(path, json=WORKDAYS, headers=now)).json()

    policies = ("jitter_seconds", "overlap", "catchup")
    assert [patched[name] for name in policies] == [60, "skip", "none"]
    assert [put[name] for name in policies] == [0, "buffer_one", "all"]


async def test_the_name_of_a_deleted_schedule_can_be_used_again(api: httpx.AsyncClient) -> None:
    created = await create_schedule(api)
    path = f"/schedules/{created['id']}"

    deleted = await api.delete(path, headers={"If-Match": '"1"'})

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await api.get(path)).json()["code"] == "schedule_not_found"
    assert (await create_schedule(api))["id"] != created["id"]


async def test_a_duplicate_name_is_a_conflict(api: httpx.AsyncClient) -> None:
    await create_schedule(api)

    response = await api.post("/schedules", json=WORKDAYS)

    assert (response.status_code, response.json()["code"]) == (409, "schedule_name_taken")


async def test_changing_the_daily_schedule_is_rejected_with_its_setting(
    api: httpx.AsyncClient, sessions: Sessions
) -> None:
    daily = await define_daily_schedule(sessions)
    path, now = f"/schedules/{daily.id}", {"If-Match": "*"}

    editing = await api.patch(path, json={"cron": "0 1 * * *"}, headers=now)
    removing = await api.delete(path, headers=now)
    pausing = await api.post(f"{path}/pause", json={"note": "freeze"})

    assert (editing.status_code, removing.status_code) == (409, 409)
    assert "DAYBOOK_DAILY_CRON" in editing.json()["detail"]
    assert (pausing.status_code, pausing.json()["note"]) == (200, "freeze")


async def test_schedules_are_paginated_and_filtered(api: httpx.AsyncClient) -> None:
    created = [await create_schedule(api, name=f"s{n}") for n in range(3)]
    await api.post(f"/schedules/{created[1]['id']}/pause")

    first = (await api.get("/schedules", params={"limit": 2})).json()
    second = (await api.get("/schedules", params={"limit": 2, "after": first["next"]})).json()
    paused = (await api.get("/schedules", params={"enabled": False})).json()

    names = [[schedule["name"] for schedule in page["schedules"]] for page in (first, second)]
    assert (names, second["next"]) == ([["s0", "s1"], ["s2"]], None)
    assert [schedule["name"] for schedule in paused["schedules"]] == ["s1"]


async def test_a_schedule_is_paused_triggered_and_resumed(api: httpx.AsyncClient) -> None:
    created = await create_schedule(api)
    path = f"/schedules/{created['id']}"

    early = await api.post(f"{path}/resume")
    paused = await api.post(f"{path}/pause", json={"note": "freeze"})
    triggered = await api.post(f"{path}/trigger")
    resumed = await api.post(f"{path}/resume", json={"mode": "catchup"})

    assert (early.status_code, early.json()["version"]) == (200, 1)
    assert (paused.json()["enabled"], paused.json()["version"]) == (False, 2)
    assert (resumed.json()["enabled"], resumed.json()["note"]) == (True, None)
    run = triggered.json()
    assert (triggered.status_code, run["state"], run["joined"]) == (202, "pending", False)
    assert triggered.headers["location"] == f"/report/runs/{run['id']}"
    assert run["schedule_id"] == created["id"]


async def test_pausing_a_paused_schedule_changes_its_note_only_if_a_new_one_is_given(
    api: httpx.AsyncClient,
) -> None:
    path = f"/schedules/{(await create_schedule(api))['id']}/pause"
    await api.post(path, json={"note": "freeze"})

    bodies: list[dict[str, Any] | None] = [None, {}, {"note": None}, {"note": "thaw"}, {"note": ""}]
    responses = [(await api.post(path, json=body)).json()["note"] for body in bodies]

    assert responses == ["freeze", "freeze", "freeze", "thaw", ""]


async def test_text_that_postgres_cannot_store_is_rejected(api: httpx.AsyncClient) -> None:
    path = f"/schedules/{(await create_schedule(api))['id']}/pause"

    noted = await api.post(path, json={"note": "fre\x00eze"})
    listed = await api.get("/schedules/taskiq", params={"after": "a\x00"})

    for response, pointer in ((noted, "#/note"), (listed, "#/after")):
        (error,) = response.json()["errors"]
        assert (response.status_code, error["pointer"]) == (422, pointer)
        assert error["detail"] == "contains a NUL character (U+0000), which cannot be stored"


async def test_a_triggered_run_is_cancelled_and_retried(api: httpx.AsyncClient) -> None:
    created = await create_schedule(api)
    run = (await api.post(f"/schedules/{created['id']}/trigger")).json()
    path = f"/report/runs/{run['id']}"

    cancelled = await api.post(f"{path}/cancel", json={"reason": "freeze"})
    again = await api.post(f"{path}/cancel")
    retried = await api.post(f"{path}/retry")
    twice = await api.post(f"{path}/retry")

    assert (cancelled.json()["state"], cancelled.json()["reason"]) == ("cancelled", "freeze")
    assert (again.status_code, again.json()) == (200, cancelled.json())
    assert (retried.status_code, retried.json()["state"]) == (202, "pending")
    assert (twice.status_code, twice.json()["code"]) == (409, "run_not_ended")


async def test_an_unknown_schedule_is_not_found_by_any_endpoint(api: httpx.AsyncClient) -> None:
    now = {"If-Match": "*"}
    responses = [
        await api.get("/schedules/17"),
        await api.get("/schedules/17/fires"),
        await api.put("/schedules/17", json=WORKDAYS, headers=now),
        await api.delete("/schedules/17", headers=now),
        *[await api.post(f"/schedules/17/{what}") for what in ("pause", "resume", "trigger")],
    ]
    assert {response.status_code for response in responses} == {404}
    assert (await api.get("/schedules/seventeen")).status_code == 422
