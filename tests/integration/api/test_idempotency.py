"""A request that comes again with its key has one effect and one answer."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.idempotency.service import EXPIRED_KEYS_PER_CLAIM
from tests.support.rest import ADDRESS, PRODUCT, add, left, open_shop, order

KEY = "Idempotency-Key"


@pytest.fixture(autouse=True)
async def shop(api: httpx.AsyncClient) -> None:
    """Begin with ada, her address and ten teas at 3.50."""
    await open_shop(api)


async def send(
    api: httpx.AsyncClient, path: str, body: dict[str, Any], *, key: str = "k-1"
) -> httpx.Response:
    return await api.post(path, json=body, headers={KEY: key})


async def keys(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        count: int = (
            await connection.execute(text("SELECT count(*) FROM idempotency_keys"))
        ).scalar_one()
    return count


async def age(engine: AsyncEngine, by: timedelta) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE idempotency_keys SET created_at = created_at - CAST(:by AS interval)"),
            {"by": by},
        )


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        ("/users", {"username": "bob", "email": "bob@example.com"}, {"username": "eve"}),
        ("/users/1/addresses", ADDRESS, {"city": "Oslo"}),
        ("/products", PRODUCT, {"price": 4}),
        ("/orders", order(2), {"external_id": "x"}),
        ("/report/runs", {"date": "2026-03-01"}, {"date": "2026-03-02"}),
        ("/report/runs", {"from": "2026-03-01", "to": "2026-03-02"}, {"to": "2026-03-03"}),
        ("/schedules", {"name": "hourly", "cron": "@hourly"}, {"cron": "@daily"}),
    ],
)
async def test_the_same_request_is_answered_as_the_first_time(
    api: httpx.AsyncClient, path: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    first = await send(api, path, body)
    again = await send(api, path, body)
    differently = await api.post(
        path,
        content=httpx.Request("POST", "/", json=dict(reversed(body.items()))).content + b" ",
        headers={KEY: "k-1", "Content-Type": "application/json"},
    )
    assert first.status_code in {201, 202}
    assert "idempotency-replayed" not in first.headers
    for answer in (again, differently):
        assert (answer.status_code, answer.content) == (first.status_code, first.content)
        assert answer.headers["location"] == first.headers["location"]
        assert answer.headers.get("etag") == first.headers.get("etag")
        assert answer.headers["idempotency-replayed"] == "true"

    reused = await send(api, path, {**body, **other})
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")


async def test_whatever_creates_something_takes_a_key(api: httpx.AsyncClient) -> None:
    paths = (await api.get("/openapi.json")).json()["paths"]
    creating = {
        path: {one["name"] for one in operations["post"].get("parameters", [])}
        for path, operations in paths.items()
        if "post" in operations
        and any("Location" in answer.get("headers", {}) for answer in _answers(operations["post"]))
    }
    assert {"/orders", "/schedules", "/schedules/{schedule_id}/trigger"} <= creating.keys()
    assert [path for path, names in creating.items() if KEY not in names] == []


def _answers(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return list(operation["responses"].values())


async def test_many_at_once_have_one_effect_and_one_answer(api: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(send(api, "/orders", order(2)) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 11
    assert await left(api) == 8
    assert (await api.get("/orders")).json()["total"] == 1


async def test_a_key_counts_for_its_operation(api: httpx.AsyncClient) -> None:
    await add(api, "/users", {"username": "bob", "email": "bob@example.com"})
    for path in ("/users/1/addresses", "/users/2/addresses"):
        answer = await send(api, path, ADDRESS)
        assert answer.headers["location"].startswith(path)
    assert (await send(api, "/users/1/addresses/", ADDRESS)).headers["idempotency-replayed"]


async def test_a_trigger_that_comes_again_asks_for_no_second_run(api: httpx.AsyncClient) -> None:
    made = await add(api, "/schedules", {"name": "hourly", "cron": "@hourly"})
    trigger = f"/schedules/{made['id']}/trigger"
    first = await api.post(trigger, headers={KEY: "k-1"})
    await api.post(f"{first.headers['location']}/cancel")
    again = await api.post(trigger, headers={KEY: "k-1"})
    other = await api.post(trigger, headers={KEY: "k-2"})

    assert [answer.status_code for answer in (first, again, other)] == [202] * 3
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"] != other.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert len((await api.get("/report/runs")).json()["runs"]) == 2


async def test_a_refusal_is_not_remembered(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    refused = await send(api, "/orders", order(11))
    await api.put("/products/1", json={"stock_quantity": 11})
    assert await keys(engine) == 0
    accepted = await send(api, "/orders", order(11))
    assert (refused.status_code, accepted.status_code) == (409, 201)


async def test_the_answer_stays_when_what_was_created_changes(api: httpx.AsyncClient) -> None:
    first = await send(api, "/orders", order(2))
    await api.delete("/orders/1")
    assert (await send(api, "/orders", order(2))).content == first.content
    assert (await api.get("/orders")).json()["total"] == 0


async def test_a_key_is_forgotten_after_its_time(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await send(api, "/orders", order(2))
    await age(engine, timedelta(hours=23))
    assert (await send(api, "/orders", order(2))).headers["location"] == "/orders/1"
    await age(engine, timedelta(hours=2))
    fresh = await send(api, "/orders", order(3))
    assert (fresh.status_code, fresh.headers["location"]) == (201, "/orders/2")
    assert (await send(api, "/orders", order(3))).content == fresh.content


async def test_expired_keys_do_not_pile_up(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    for n in range(EXPIRED_KEYS_PER_CLAIM + 5):
        await send(api, "/products", PRODUCT, key=f"old-{n}")
    await age(engine, timedelta(hours=25))
    await send(api, "/products", PRODUCT, key="new-1")
    assert await keys(engine) == 6
    await send(api, "/products", PRODUCT, key="new-2")
    assert await keys(engine) == 2


@pytest.mark.parametrize("key", [b"", b"two words", b"x" * 201, b"caf\xe9"])
async def test_a_bad_key_is_refused(api: httpx.AsyncClient, key: bytes) -> None:
    answer = await api.post("/orders", json=order(), headers={KEY.encode(): key})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["location"], error["pointer"]) == ("header", f"#/{KEY}")
    assert await left(api) == 10
