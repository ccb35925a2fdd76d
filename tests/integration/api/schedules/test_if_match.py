"""Integration tests of optimistic concurrency of schedules."""

from typing import Any

import httpx
import pytest

WORKDAYS = {"name": "workdays", "cron": "0 9 * * MON-FRI", "timezone": "Asia/Yekaterinburg"}


async def create_schedule(api: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await api.post("/schedules", json={**WORKDAYS, **fields})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


async def test_a_change_requires_the_current_version(api: httpx.AsyncClient) -> None:
    created = await create_schedule(api)
    path, new = f"/schedules/{created['id']}", {"cron": "0 10 * * *"}

    without = await api.patch(path, json=new)
    weak = await api.patch(path, json=new, headers={"If-Match": 'W/"1"'})
    first = await api.patch(path, json=new, headers={"If-Match": '"1"'})
    second = await api.put(path, json=WORKDAYS, headers={"If-Match": '"1"'})
    removing = await api.delete(path, headers={"If-Match": '"1"'})
    any_version = await api.put(path, json=WORKDAYS, headers={"If-Match": "*"})

    statuses = [a.status_code for a in (without, weak, first, second, removing, any_version)]
    assert statuses == [428, 412, 200, 412, 412, 200]
    assert without.json()["code"] == "precondition_required"
    assert second.json()["code"] == "schedule_changed"
    assert first.headers["etag"] == '"2"'
    assert first.json() == created | {
        "cron": "0 10 * * *",
        "version": 2,
        "next_fire_at": first.json()["next_fire_at"],
        "next_report_date": first.json()["next_report_date"],
        "updated_at": first.json()["updated_at"],
    }
    assert (any_version.json()["cron"], any_version.json()["version"]) == (WORKDAYS["cron"], 3)


@pytest.mark.parametrize(
    ("matching", "other"),
    [
        ([("If-Match", '"7", "1"')], [("If-Match", '"2", "3"')]),
        ([("If-Match", '"7"'), ("If-Match", 'W/"2", "1"')], [("If-Match", '"7", W/"1"')]),
        ([("If-Match", '"of,another", "1"')], [("If-Match", '"1" "2"')]),
    ],
)
async def test_a_change_requires_one_of_the_listed_versions_to_be_current(
    api: httpx.AsyncClient, matching: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    path, new = f"/schedules/{(await create_schedule(api))['id']}", {"cron": "0 10 * * *"}

    refused = [
        await api.patch(path, json=new, headers=other),
        await api.put(path, json=WORKDAYS, headers=other),
        await api.delete(path, headers=other),
    ]
    changed = await api.patch(path, json=new, headers=matching)

    assert {response.status_code for response in refused} == {412}
    assert {response.json()["code"] for response in refused} == {"schedule_changed"}
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
