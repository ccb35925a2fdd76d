"""Integration tests of what all endpoints have in common."""

import re
from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import MakeDay
from tests.support.http import create_shop, order_body

INSTANT = re.compile(r'"\d{4}-\d{2}-\d{2}T[^"]*"')


@pytest.fixture
async def world(api: httpx.AsyncClient, make_day: MakeDay) -> dict[str, str]:
    """Insert one resource of each kind, and return their ids by the parameters of paths."""
    await create_shop(api)
    await api.post("/orders", json=order_body(external_id="A-1"))
    await api.post("/schedules", json={"name": "hourly", "cron": "@hourly"})
    run = (await api.post("/report/runs", json={"date": "2026-03-01"})).json()
    days = {"from": "2026-03-02", "to": "2026-03-03"}
    backfill = (await api.post("/report/backfills", json=days)).json()
    await make_day("2026-03-01")
    return {
        **dict.fromkeys(("user_id", "address_id", "product_id", "order_id", "schedule_id"), "1"),
        **{"run_id": run["id"], "backfill_id": backfill["id"], "day": "2026-03-01"},
        **{"code": "outdated", "letter_id": "1"},
    }


async def _list_reads(api: httpx.AsyncClient, world: dict[str, str]) -> list[str]:
    paths = (await api.get("/openapi.json")).json()["paths"]
    reads = [path.format(**world) for path, operations in paths.items() if "get" in operations]
    return [path for path in reads if not path.startswith("/dead-letters/")]


async def test_head_has_the_headers_of_get_wherever_get_is(
    api: httpx.AsyncClient, world: dict[str, str]
) -> None:
    queries = {"/schedules/preview": "?cron=@daily&after=2026-03-01T00:00:00Z"}
    for path in await _list_reads(api, world):
        url = path + queries.get(path, "")
        head = await api.head(url)
        assert (head.status_code, head.content) == (200, b""), path
        if path.endswith("/events"):
            assert head.headers["content-type"].startswith("text/event-stream")
            continue
        get = await api.get(url)
        same = ("content-type", "etag", "allow", "link")
        assert [head.headers.get(name) for name in same] == [get.headers.get(name) for name in same]


async def test_every_instant_is_in_utc_and_ends_with_z(
    api: httpx.AsyncClient, world: dict[str, str]
) -> None:
    queries = {"/report": "?date=2026-03-01"}
    for path in await _list_reads(api, world):
        if path in {"/schedules/preview", "/asyncapi"} or path.endswith("/events"):
            continue
        text = (await api.get(path + queries.get(path, ""))).text
        assert all(found.endswith('Z"') for found in INSTANT.findall(text)), path
    for format in ("ndjson", "csv"):
        text = (await api.get(f"/report?date=2026-03-01&format={format}")).text
        assert len(INSTANT.findall(text)) == 3
        assert all(found.endswith('Z"') for found in INSTANT.findall(text)), format


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/schedules/preview", "GET, HEAD"),
        ("/schedules/1", "GET, HEAD, PUT, PATCH, DELETE"),
        ("/report/runs", "GET, HEAD, POST"),
        ("/report/runs/1/cancel", "POST"),
        ("/users/1", "GET, HEAD, PUT, PATCH, DELETE"),
        ("/dead-letters/redrive", "POST"),
    ],
)
async def test_allow_lists_the_methods_of_the_path_itself(
    api: httpx.AsyncClient, path: str, allowed: str
) -> None:
    response = await api.options(path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("PUT", "/schedules/preview"), ("DELETE", "/schedules/taskiq")),
        *(("GET", "/report/backfills/preview"), ("HEAD", "/dead-letters/redrive")),
    ],
)
async def test_a_fixed_path_has_no_methods_of_a_path_with_a_parameter(
    api: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await api.request(method, path)
    assert answer.status_code == 405
    assert method not in answer.headers["allow"].split(", ")


async def test_a_response_without_content_has_no_content_type(
    api: httpx.AsyncClient, world: dict[str, str]
) -> None:
    for path in ("/orders/1", "/products/1", "/users/1/addresses/1", "/users/1", "/schedules/1"):
        response = await api.delete(path, headers={"If-Match": "*"})
        assert (response.status_code, response.content) == (204, b""), path
        assert "content-type" not in response.headers


async def test_the_type_of_a_problem_is_the_address_of_its_description(
    api: httpx.AsyncClient,
) -> None:
    problem = (await api.get("/users/17")).json()
    described = (await api.get(problem["type"])).json()
    listed = (await api.get("/problems")).json()["problems"]

    assert (described["code"], described["status"]) == (problem["code"], 404)
    assert described["type"] == problem["type"] == "/problems/user_not_found"
    assert described in listed
    assert (await api.get("/problems/nonsense")).status_code == 404


async def test_invalid_input_has_one_code(api: httpx.AsyncClient) -> None:
    responses = [
        await api.get("/report/days?from=2026-03-02&to=2026-03-01"),
        await api.get("/report/days?from=yesterday"),
        await api.get("/report/runs?before=x"),
        await api.post("/report/runs", json={}),
        await api.post("/report/runs", content=b"\xff", headers={"Content-Type": "text/json"}),
        await api.post("/users", content=b"\xff", headers={"Content-Type": "application/json"}),
        await api.get("/orders?from=2026-03-02&to=2026-03-01"),
        await api.get("/orders?page=2&before=MjAyNi0wMy0wMVQwMDowMDowMCswMDowMCAx"),
    ]
    assert [(a.status_code, a.json()["code"]) for a in responses] == [(422, "invalid_request")] * 8


@pytest.mark.parametrize("path", ["/users", "/products", "/orders", "/users/1/addresses"])
async def test_pages_that_links_name_repeat_nothing(api: httpx.AsyncClient, path: str) -> None:
    await create_shop(api)
    rows: dict[str, Any] = {
        "/users": lambda n: {"username": f"u{n}", "email": f"u{n}@example.com"},
        "/products": lambda n: {"name": f"p{n}", "price": 1},
        "/orders": lambda n: order_body(external_id=f"o{n}"),
        "/users/1/addresses": lambda n: {
            **{"street": f"s{n}", "city": "c", "zip_code": "1", "country": "NO"}
        },
    }
    for n in range(5):
        assert (await api.post(path, json=rows[path](n))).status_code == 201
    expected = [row["id"] for row in (await _rows(api, f"{path}?count=100"))[0]]
    seen, url, added = list[int](), f"{path}?count=2", 10
    while url:
        page, url = await _rows(api, url)
        seen += [row["id"] for row in page]
        # A row that is added meanwhile would move the last row of this page to the next one.
        assert (await api.post(path, json=rows[path](added))).status_code == 201
        added += 1
    assert seen == expected


async def _rows(api: httpx.AsyncClient, url: str) -> tuple[list[dict[str, Any]], str]:
    response = await api.get(url)
    (rows,) = (value for value in response.json().values() if isinstance(value, list))
    return rows, response.links.get("next", {}).get("url", "")


@pytest.mark.parametrize("path", ["/schedules", "/report/backfills/{backfill_id}/days"])
async def test_lists_by_position_have_a_link(
    api: httpx.AsyncClient, world: dict[str, str], path: str
) -> None:
    if path == "/schedules":
        await api.post(path, json={"name": "daily2", "cron": "@daily"})
        first, url = await _rows(api, f"{path}?limit=1")
        second, end = await _rows(api, url)
        assert ([row["name"] for row in first + second], end) == (["hourly", "daily2"], "")
    else:
        rows, url = await _rows(api, path.format(**world))
        assert (rows, url) == ([], "")


async def test_orders_are_filtered_by_external_id_and_business_day(
    api: httpx.AsyncClient, world: dict[str, str]
) -> None:
    (order,) = (await api.get("/orders")).json()["orders"]
    day = order["created_at"][:10]

    async def count(query: str) -> int:
        total: int = (await api.get(f"/orders?{query}")).json()["total"]
        return total

    assert await count("external_id=A-1") == 1
    assert await count("external_id=A-2") == 0
    assert await count(f"from={day}&to={day}") == 1
    assert await count("to=2026-01-01") == 0
    assert await count("from=9998-01-01") == 0
    assert (await api.get("/users?email=nobody@example.com")).json()["total"] == 0
    user = (await api.get("/users/1")).json()
    assert (await api.get("/users", params={"email": user["email"]})).json()["users"] == [user]


async def test_the_same_state_twice_answers_alike(
    api: httpx.AsyncClient, world: dict[str, str]
) -> None:
    backfill, run = f"/report/backfills/{world['backfill_id']}", f"/report/runs/{world['run_id']}"
    for path in (
        *(f"/schedules/1/{action}" for action in ("pause", "resume")),
        *(f"{backfill}/{action}" for action in ("pause", "resume", "cancel")),
        f"{run}/cancel",
    ):
        first, second = await api.post(path), await api.post(path)
        assert (first.status_code, second.status_code) == (200, 200), path
        assert second.json() == first.json(), path


async def test_a_backfill_is_requested_with_one_shape_and_previewed(
    api: httpx.AsyncClient,
) -> None:
    wanted = {"from": "2026-03-01", "to": "2026-03-03"}

    preview = (await api.post("/report/backfills/preview", json=wanted)).json()
    created = await api.post("/report/backfills", json=wanted)
    again = await api.post("/report/backfills", json=wanted)
    same = await api.post("/report/runs", json=wanted)

    assert preview["total"] == 3
    assert (created.status_code, created.json()["already_going"]) == (202, False)
    assert created.headers["location"] == f"/report/backfills/{created.json()['id']}"
    assert again.json() == same.json() == created.json() | {"already_going": True}


async def test_an_unknown_outcome_is_refused(api: httpx.AsyncClient, world: dict[str, str]) -> None:
    days = f"/report/backfills/{world['backfill_id']}/days"
    assert (await api.get(f"{days}?outcome=skipped: sealed")).status_code == 200
    assert (await api.get(f"{days}?outcome=done")).status_code == 422


async def test_the_report_of_a_relative_day(api: httpx.AsyncClient, make_day: MakeDay) -> None:
    nothing = await api.get("/report?date=latest")
    await make_day("2026-03-01")
    await make_day("2026-03-02", sealed=False)

    latest = await api.get("/report?date=latest&format=csv")
    yesterday, today = await api.get("/report?date=yesterday"), await api.get("/report?date=today")

    assert (nothing.status_code, nothing.json()["code"]) == (404, "day_not_found")
    assert latest.headers["daybook-report-date"] == "2026-03-01"
    assert (
        latest.headers["content-disposition"]
        == 'attachment; filename="daybook-report-2026-03-01.csv"'
    )
    assert yesterday.headers["daybook-report-date"] < today.headers["daybook-report-date"]
