"""Integration tests of the Idempotency-Key header."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.idempotency.service import EXPIRED_KEYS_PER_CLAIM
from tests.support.http import (
    ADDRESS,
    PRODUCT,
    create_resource,
    create_shop,
    fetch_stock,
    order_body,
)

KEY = "Idempotency-Key"


@pytest.fixture(autouse=True)
async def shop(api: httpx.AsyncClient) -> None:
    """Create a user, her address and ten pieces of a product at 3.50."""
    await create_shop(api)


async def send(
    api: httpx.AsyncClient, path: str, body: dict[str, Any], *, key: str = "k-1"
) -> httpx.Response:
    return await api.post(path, json=body, headers={KEY: key})


async def count_keys(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        count: int = (
            await connection.execute(text("SELECT count(*) FROM idempotency_keys"))
        ).scalar_one()
    return count


async def age_keys(engine: AsyncEngine, *, by: timedelta) -> None:
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
        ("/orders", order_body(2), {"external_id": "x"}),
        ("/report/runs", {"date": "2026-03-01"}, {"date": "2026-03-02"}),
        ("/report/runs", {"from": "2026-03-01", "to": "2026-03-02"}, {"to": "2026-03-03"}),
        ("/schedules", {"name": "hourly", "cron": "@hourly"}, {"cron": "@daily"}),
    ],
)
async def test_a_repeated_request_returns_the_stored_response(
    api: httpx.AsyncClient, path: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    first = await send(api, path, body)
    again = await send(api, path, body)
    reordered = await api.post(
        path,
        content=httpx.Request("POST", "/", json=dict(reversed(body.items()))).content + b" ",
        headers={KEY: "k-1", "Content-Type": "application/json"},
    )
    assert first.status_code in {201, 202}
    assert "idempotency-replayed" not in first.headers
    for response in (again, reordered):
        assert (response.status_code, response.content) == (first.status_code, first.content)
        assert response.headers["location"] == first.headers["location"]
        assert response.headers.get("etag") == first.headers.get("etag")
        assert response.headers["idempotency-replayed"] == "true"

    reused = await send(api, path, {**body, **other})
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")


async def test_every_creating_endpoint_accepts_an_idempotency_key(api: httpx.AsyncClient) -> None:
    paths = (await api.get("/openapi.json")).json()["paths"]
    creating = {
        path: {one["name"] for one in operations["post"].get("parameters", [])}
        for path, operations in paths.items()
        if "post" in operations
        and any(
            "Location" in response.get("headers", {})
            for response in _list_responses(operations["post"])
        )
    }
    assert {"/orders", "/schedules", "/schedules/{schedule_id}/trigger"} <= creating.keys()
    assert [path for path, names in creating.items() if KEY not in names] == []


def _list_responses(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return list(operation["responses"].values())


async def test_concurrent_requests_with_one_key_have_one_effect_and_one_response(
    api: httpx.AsyncClient,
) -> None:
    responses = await asyncio.gather(*(send(api, "/orders", order_body(2)) for _ in range(12)))
    assert {response.status_code for response in responses} == {201}
    assert len({response.content for response in responses}) == 1
    assert sum("idempotency-replayed" in response.headers for response in responses) == 11
    assert await fetch_stock(api) == 8
    assert (await api.get("/orders")).json()["total"] == 1


async def test_a_key_is_scoped_to_its_operation(api: httpx.AsyncClient) -> None:
    await create_resource(api, "/users", {"username": "bob", "email": "bob@example.com"})
    for path in ("/users/1/addresses", "/users/2/addresses"):
        response = await send(api, path, ADDRESS)
        assert response.headers["location"].startswith(path)
    assert (await send(api, "/users/1/addresses/", ADDRESS)).headers["idempotency-replayed"]


async def test_a_repeated_trigger_requests_no_second_run(api: httpx.AsyncClient) -> None:
    schedule = await create_resource(api, "/schedules", {"name": "hourly", "cron": "@hourly"})
    trigger = f"/schedules/{schedule['id']}/trigger"
    first = await api.post(trigger, headers={KEY: "k-1"})
    await api.post(f"{first.headers['location']}/cancel")
    again = await api.post(trigger, headers={KEY: "k-1"})
    other = await api.post(trigger, headers={KEY: "k-2"})

    assert [response.status_code for response in (first, again, other)] == [202] * 3
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"] != other.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert len((await api.get("/report/runs")).json()["runs"]) == 2


async def test_an_error_response_is_not_stored(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    rejected = await send(api, "/orders", order_body(11))
    await api.put("/products/1", json={"stock_quantity": 11})
    assert await count_keys(engine) == 0
    accepted = await send(api, "/orders", order_body(11))
    assert (rejected.status_code, accepted.status_code) == (409, 201)


async def test_a_stored_response_does_not_change_with_the_entity(api: httpx.AsyncClient) -> None:
    first = await send(api, "/orders", order_body(2))
    await api.delete("/orders/1")
    assert (await send(api, "/orders", order_body(2))).content == first.content
    assert (await api.get("/orders")).json()["total"] == 0


async def test_a_key_expires_after_its_retention(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await send(api, "/orders", order_body(2))
    await age_keys(engine, by=timedelta(hours=23))
    assert (await send(api, "/orders", order_body(2))).headers["location"] == "/orders/1"
    await age_keys(engine, by=timedelta(hours=2))
    fresh = await send(api, "/orders", order_body(3))
    assert (fresh.status_code, fresh.headers["location"]) == (201, "/orders/2")
    assert (await send(api, "/orders", order_body(3))).content == fresh.content


async def test_expired_keys_are_deleted_by_later_requests(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    for n in range(EXPIRED_KEYS_PER_CLAIM + 5):
        await send(api, "/products", PRODUCT, key=f"old-{n}")
    await age_keys(engine, by=timedelta(hours=25))
    await send(api, "/products", PRODUCT, key="new-1")
    assert await count_keys(engine) == 6
    await send(api, "/products", PRODUCT, key="new-2")
    assert await count_keys(engine) == 2


@pytest.mark.parametrize("key", [b"", b"two words", b"x" * 201, b"caf\xe9"])
async def test_a_malformed_key_is_rejected(api: httpx.AsyncClient, key: bytes) -> None:
    response = await api.post("/orders", json=order_body(), headers={KEY.encode(): key})
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert (error["location"], error["pointer"]) == ("header", f"#/{KEY}")
    assert await fetch_stock(api) == 10
