"""Integration tests of /report/runs."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from daybook_domain.pg_channels import RUNS_CHANNEL

RUNS = "/report/runs"


async def _request(api: httpx.AsyncClient, day: str, **more: str) -> dict[str, Any]:
    response = await api.post(RUNS, json={"date": day, **more})
    assert response.status_code == 202, response.text
    run: dict[str, Any] = response.json()
    return run


async def test_a_request_creates_a_run_that_can_be_read(api: httpx.AsyncClient) -> None:
    response = await api.post(RUNS, json={"date": "2026-03-01", "reason": "late import"})
    run = response.json()
    assert (response.status_code, response.headers["location"]) == (202, f"{RUNS}/{run['id']}")
    assert (run["state"], run["trigger"], run["joined"]) == ("pending", "manual", False)
    assert run["reason"] == "late import"
    shown = await api.get(response.headers["location"])
    assert shown.json() == {name: value for name, value in run.items() if name != "joined"}


async def test_a_second_request_joins_the_waiting_run(api: httpx.AsyncClient) -> None:
    first = await _request(api, "2026-03-01")
    second = await _request(api, "2026-03-01")
    other = await _request(api, "2026-03-02")
    assert (second["id"], second["joined"]) == (first["id"], True)
    assert (other["id"] != first["id"], other["joined"]) == (True, False)


async def test_concurrent_requests_create_one_run(api: httpx.AsyncClient) -> None:
    runs = await asyncio.gather(*(_request(api, "2026-03-01") for _ in range(12)))
    assert len({run["id"] for run in runs}) == 1
    assert sorted(run["joined"] for run in runs) == [False] + [True] * 11


async def test_schedulers_are_notified_when_the_run_is_committed(
    api: httpx.AsyncClient, postgres_url: str
) -> None:
    notified = asyncio.Event()
    listener = await asyncpg.connect(postgres_url)
    await listener.add_listener(RUNS_CHANNEL, lambda *_: notified.set())
    await _request(api, "2026-03-01")
    async with asyncio.timeout(5):
        await notified.wait()
    assert await listener.fetchval("SELECT count(*) FROM report_runs") == 1
    await listener.close()


@pytest.mark.parametrize(
    ("body", "pointer", "hint"),
    [
        ({"date": "2999-01-01"}, "#/date", "has not started"),
        ({"date": "2026-13-01"}, "#/date", "expected YYYY-MM-DD"),
        ({"date": ""}, "#/date", "is empty"),
        ({"date": 20260301}, "#/date", "is not a calendar date"),
        ({"date": None}, "#/date", "is not a calendar date"),
        ({}, "#/date", "is required"),
        ({"date": "2026-03-01", "force": True}, "#/force", "is not a known field or parameter"),
        ({"date": "2026-03-01", "reason": "x" * 501}, "#/reason", "500"),
        ({"date": "2026-03-01", "reason": "a\0b"}, "#/reason", "U+0000"),
        ({"from": "2026-03-01"}, "#/to", "a range needs both `from` and `to`"),
        ({"to": "2026-03-01"}, "#/from", "a range needs both `from` and `to`"),
        ({"mode": "all"}, "#/from", "a range needs both `from` and `to`"),
        ({"date": "2026-03-01", "to": "2026-03-01"}, "#/to", "either `date`"),
        ({"date": "2026-03-01", "dry_run": True}, "#/dry_run", "either `date`"),
        ({"from": "2026-03-02", "to": "2026-03-01"}, "#/from", "is after `to`"),
        ({"from": "2006-03-01", "to": "2026-03-01"}, "#/to", "at most 3,660"),
        ({"from": "2026-03-02", "to": "2999-01-01"}, "#/to", "is in the future"),
        ({"from": "2026-03-02", "to": "2999-01-01", "dry_run": True}, "#/to", "is in the future"),
        ({"from": "x", "to": "2026-03-01"}, "#/from", "is not a calendar date"),
        ({"from": "2026-03-01", "to": "2026-03-01", "mode": "some"}, "#/mode", "'absent'"),
        ({"from": "2026-03-01", "to": "2026-03-01", "concurrency": 0}, "#/concurrency", "1"),
        ({"from": "2026-03-01", "to": "2026-03-01", "concurrency": 101}, "#/concurrency", "100"),
        (["2026-03-01"], "#", "a JSON object"),
        ("2026-03-01", "#", "a JSON object"),
    ],
)
async def test_an_invalid_request_is_rejected_with_a_hint(
    api: httpx.AsyncClient, body: Any, pointer: str, hint: str
) -> None:
    response = await api.post(RUNS, json=body)
    problem = response.json()
    assert (response.status_code, problem["status"]) == (422, 422)
    assert hint in problem["detail"]
    assert problem["errors"][0]["location"] == "body"
    assert problem["errors"][0]["pointer"] == pointer
    assert (await api.get(RUNS)).json() == {"runs": [], "next": None}


async def test_a_body_that_is_not_json_is_rejected(api: httpx.AsyncClient) -> None:
    json = {"Content-Type": "application/json"}
    broken = await api.post(RUNS, content='{"date": ', headers=json)
    empty = await api.post(RUNS, content="", headers=json)
    form = await api.post(RUNS, data={"date": "2026-03-01"})
    assert {response.status_code for response in (broken, empty, form)} == {422}
    assert "not JSON" in broken.json()["detail"]
    assert "Content-Type: application/json" in form.json()["detail"]


async def test_defaults_of_range_fields_may_accompany_a_date(api: httpx.AsyncClient) -> None:
    defaults = {"mode": "absent", "concurrency": 4, "dry_run": False}

    response = await api.post(RUNS, json={"date": "2026-03-01", **defaults})

    assert (response.status_code, response.json()["report_date"]) == (202, "2026-03-01")


async def test_an_unknown_run_is_not_found_and_a_malformed_id_is_invalid(
    api: httpx.AsyncClient,
) -> None:
    unknown = await api.get(f"{RUNS}/{uuid4()}")
    bad = await api.get(f"{RUNS}/17")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "run_not_found")
    assert "GET /report/runs lists the latest" in unknown.json()["detail"]
    assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (422, "#/run_id")
    assert "expected a UUID" in bad.json()["detail"]


async def test_the_list_is_paginated_newest_first(api: httpx.AsyncClient) -> None:
    ids = [(await _request(api, f"2026-03-{day:02}"))["id"] for day in range(1, 8)]
    seen: list[str] = []
    url: str | None = f"{RUNS}?limit=3&trigger=manual"
    pages = 0
    while url is not None:
        response = await api.get(url)
        seen += [run["id"] for run in response.json()["runs"]]
        url = response.links.get("next", {}).get("url")
        assert (response.json()["next"] is None) == (url is None)
        pages += 1
    assert (seen, pages) == (ids[::-1], 3)


async def test_the_list_is_filtered(api: httpx.AsyncClient) -> None:
    first = await _request(api, "2026-03-01")
    await _request(api, "2026-03-02")

    async def found(query: str) -> list[str]:
        return [run["id"] for run in (await api.get(f"{RUNS}?{query}")).json()["runs"]]

    assert await found("date=2026-03-01") == [first["id"]]
    assert len(await found("state=pending&state=running")) == 2
    assert await found("state=succeeded") == []
    assert await found("trigger=schedule") == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "#/limit"),
        ("limit=1001", "#/limit"),
        ("limit=x", "#/limit"),
        ("state=done", "#/state/0"),
        ("trigger=", "#/trigger"),
        ("before=!!", "#/before"),
        ("before=MjAyNg", "#/before"),
        ("date=", "#/date"),
        ("page=2", "#/page"),
    ],
)
async def test_an_invalid_filter_is_rejected(
    api: httpx.AsyncClient, query: str, pointer: str
) -> None:
    response = await api.get(f"{RUNS}?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == pointer


async def test_a_cancellation_with_a_reason_that_postgres_cannot_store_is_rejected(
    api: httpx.AsyncClient,
) -> None:
    run = (await api.post("/report/runs", json={"date": "2026-03-01"})).json()

    response = await api.post(f"/report/runs/{run['id']}/cancel", json={"reason": "a\0b"})

    assert response.status_code == 422
    (problem,) = response.json()["errors"]
    assert problem["pointer"] == "#/reason"
    assert "U+0000" in problem["detail"]
    assert (await api.get(f"/report/runs/{run['id']}")).json()["state"] == "pending"
