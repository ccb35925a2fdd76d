"""Integration tests of backfills."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from daybook_domain.runs.models import RunState
from daybook_platform.postgres.sessions import Sessions
from tests.integration.api.conftest import MakeDay
from tests.support.factories.backfills import advance_backfills, finish_backfills, finish_due_runs
from tests.support.factories.runs import list_all_runs

RUNS, BACKFILLS = "/report/runs", "/report/backfills"
RANGE = {"from": "2026-03-01", "to": "2026-03-05"}


async def request_backfill(api: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    response = await api.post(RUNS, json={**RANGE, **more})
    assert response.status_code == 202, response.text
    backfill: dict[str, Any] = response.json()
    return backfill


async def test_a_range_creates_a_backfill_that_can_be_read(api: httpx.AsyncClient) -> None:
    response = await api.post(RUNS, json={**RANGE, "reason": "an import", "concurrency": 2})

    backfill = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"{BACKFILLS}/{backfill['id']}"
    assert (
        backfill
        | {
            **RANGE,
            "mode": "absent",
            "state": "running",
            "concurrency": 2,
            "reason": "an import",
            "total": 5,
            "done": 0,
            "untouched": 5,
            "outcomes": {},
            "already_going": False,
        }
        == backfill
    )
    shown = (await api.get(response.headers["location"])).json()
    assert shown == {name: value for name, value in backfill.items() if name != "already_going"}
    assert (await api.get(RUNS)).json()["runs"] == []


async def test_a_second_request_of_the_same_range_joins_the_active_backfill(
    api: httpx.AsyncClient,
) -> None:
    first, second = await asyncio.gather(request_backfill(api), request_backfill(api))
    assert first["id"] == second["id"]
    assert sorted([first["already_going"], second["already_going"]]) == [False, True]


async def test_a_dry_run_returns_the_decision_for_each_date(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    await make_day("2026-03-01")
    waiting = (await api.post(RUNS, json={"date": "2026-03-02"})).json()

    response = await api.post(RUNS, json={**RANGE, "to": "2026-03-03", "dry_run": True})

    assert response.status_code == 200
    assert "location" not in response.headers
    assert response.json() == {
        "total": 3,
        "verdicts": {
            "build": 1,
            "join": 1,
            "skip: sealed": 1,
            "skip: not failed": 0,
            "skip: never was": 0,
        },
        "days": [
            {"report_date": "2026-03-01", "verdict": "skip: sealed", "run_id": None},
            {"report_date": "2026-03-02", "verdict": "join", "run_id": waiting["id"]},
            {"report_date": "2026-03-03", "verdict": "build", "run_id": None},
        ],
    }
    assert (await api.get(BACKFILLS)).json() == {"backfills": [], "next": None}


async def test_a_backfill_shows_its_progress_and_the_outcome_of_each_date(
    api: httpx.AsyncClient, sessions: Sessions, make_day: MakeDay
) -> None:
    await make_day("2026-03-02")
    backfill = await request_backfill(api, concurrency=1)
    await advance_backfills(sessions)
    await finish_due_runs(sessions)
    await advance_backfills(sessions)
    path = f"{BACKFILLS}/{backfill['id']}"

    shown = (await api.get(path)).json()
    page = (await api.get(f"{path}/days?limit=2")).json()
    rest = (await api.get(f"{path}/days?limit=2&after={page['next']}")).json()
    pending = (await api.get(f"{path}/days?outcome=pending")).json()

    assert (shown["done"], shown["untouched"]) == (2, 2)
    assert shown["outcomes"] == {"succeeded": 1, "skipped: sealed": 1, "pending": 1}
    assert [(day["report_date"], day["outcome"]) for day in page["days"]] == [
        ("2026-03-01", "succeeded"),
        ("2026-03-02", "skipped: sealed"),
    ]
    assert page["next"] == "2026-03-02"
    assert (rest["days"], rest["next"]) == (pending["days"], None)
    (run,) = (await api.get(f"{RUNS}?date=2026-03-03")).json()["runs"]
    assert (run["id"], run["backfill_id"]) == (rest["days"][0]["run_id"], backfill["id"])


async def test_a_backfill_is_paused_resumed_and_cancelled(
    api: httpx.AsyncClient, sessions: Sessions
) -> None:
    path = f"{BACKFILLS}/{(await request_backfill(api))['id']}"
    await advance_backfills(sessions)

    states = [
        (await api.post(f"{path}/{verb}")).json()["state"]
        for verb in ("pause", "pause", "resume", "cancel", "cancel")
    ]
    resumed = await api.post(f"{path}/resume")

    assert states == ["paused", "paused", "running", "cancelled", "cancelled"]
    assert (resumed.status_code, resumed.json()["code"]) == (409, "backfill_ended")
    assert {run.state for run in await list_all_runs(sessions)} == {RunState.CANCELLED}


async def test_the_list_is_paginated_newest_first(api: httpx.AsyncClient) -> None:
    ids = [(await request_backfill(api, to=f"2026-03-0{day}"))["id"] for day in range(1, 6)]
    await api.post(f"{BACKFILLS}/{ids[2]}/pause")

    seen: list[str] = []
    url: str | None = f"{BACKFILLS}?limit=2"
    while url is not None:
        response = await api.get(url)
        seen += [backfill["id"] for backfill in response.json()["backfills"]]
        url = response.links.get("next", {}).get("url")
    paused = (await api.get(f"{BACKFILLS}?state=paused")).json()["backfills"]

    assert seen == ids[::-1]
    assert [backfill["id"] for backfill in paused] == [ids[2]]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/days"),
        ("GET", "/events"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/cancel"),
    ],
)
async def test_an_unknown_backfill_is_not_found_and_a_malformed_id_is_invalid(
    api: httpx.AsyncClient, method: str, path: str
) -> None:
    unknown = await api.request(method, f"{BACKFILLS}/{uuid4()}{path}")
    bad = await api.request(method, f"{BACKFILLS}/17{path}")

    assert (unknown.status_code, unknown.json()["code"]) == (404, "backfill_not_found")
    assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (422, "#/backfill_id")


async def test_an_unknown_outcome_is_rejected(api: httpx.AsyncClient) -> None:
    backfill = await request_backfill(api, to="2026-03-03")

    response = await api.get(f"{BACKFILLS}/{backfill['id']}/days?outcome=a%00b")

    assert response.status_code == 422
    (problem,) = response.json()["errors"]
    assert problem["pointer"] == "#/outcome/0"
    assert "'skipped: sealed'" in problem["detail"]


async def test_the_progress_of_a_backfill_is_streamed_until_it_ends(
    api: httpx.AsyncClient, sessions: Sessions
) -> None:
    backfill = await request_backfill(api, to="2026-03-03", concurrency=1)
    stream = asyncio.create_task(api.get(f"{BACKFILLS}/{backfill['id']}/events"))

    await finish_backfills(sessions)
    response = await asyncio.wait_for(stream, 20)

    assert response.headers["content-type"].startswith("text/event-stream")
    events = [
        json.loads(line.removeprefix("data: "))
        for line in response.text.splitlines()
        if line.startswith("data: ")
    ]
    done = [backfill["done"] for backfill in events]
    assert done == sorted(done)
    assert (events[-1]["state"], events[-1]["done"], events[-1]["from"]) == (
        "finished",
        3,
        "2026-03-01",
    )
