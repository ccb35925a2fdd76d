"""Integration tests of /orders."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.reports.business_day import business_day
from tests.support.factories.reports import build_report, get_quantity_by_order
from tests.support.http import (
    ADDRESS,
    PRODUCT,
    create_resource,
    create_shop,
    fetch_stock,
    order_body,
)


@pytest.fixture(autouse=True)
async def shop(api: httpx.AsyncClient) -> None:
    """Create a user, her address and ten pieces of a product at 3.50."""
    await create_shop(api)


async def test_an_order_is_placed_and_returned(api: httpx.AsyncClient) -> None:
    response = await api.post("/orders", json=order_body(3, external_id="shop-17"))
    placed = response.json()
    assert (response.status_code, response.headers["location"]) == (201, "/orders/1")
    assert {
        name: value for name, value in placed.items() if not name.endswith(("_at", "_date"))
    } == {
        "id": 1,
        "external_id": "shop-17",
        "user_id": 1,
        "delivery_address_id": 1,
        "total_price": 10.5,
        "status": "pending",
        "items": [{"id": 1, "product_id": 1, "quantity": 3, "price_at_order": 3.5}],
    }
    assert await fetch_stock(api) == 7
    await api.put("/products/1", json={"price": 99})
    assert (await api.get("/orders/1")).json() == placed


async def test_fifty_concurrent_orders_sell_the_last_ten_pieces_once(
    api: httpx.AsyncClient,
) -> None:
    responses = await asyncio.gather(*(api.post("/orders", json=order_body()) for _ in range(50)))
    statuses = [response.status_code for response in responses]
    assert (statuses.count(201), statuses.count(409)) == (10, 40)
    for response in responses:
        if response.status_code == 409:
            assert response.json()["detail"] == "1 of product 1 requested, 0 in stock"
            assert response.json()["errors"][0]["pointer"] == "#/items/0/quantity"
    assert await fetch_stock(api) == 0
    assert (await api.get("/orders")).json()["total"] == 10


async def test_concurrent_orders_with_the_same_external_id_create_one_order(
    api: httpx.AsyncClient,
) -> None:
    responses = await asyncio.gather(
        *(api.post("/orders", json=order_body(2, external_id="shop-17")) for _ in range(12))
    )
    assert sorted(response.status_code for response in responses) == [200] * 11 + [201]
    assert len({response.text for response in responses}) == 1
    assert {response.headers["location"] for response in responses} == {"/orders/1"}
    assert await fetch_stock(api) == 8

    other = await api.post("/orders", json=order_body(3, external_id="shop-17"))
    assert (other.status_code, other.json()["code"]) == (409, "external_id_taken")
    assert other.json()["errors"][0]["pointer"] == "#/external_id"


@pytest.mark.parametrize(
    ("bad", "status", "code", "pointer"),
    [
        ({"user_id": 9}, 422, "unknown_reference", "#/user_id"),
        ({"delivery_address_id": 9}, 422, "unknown_reference", "#/delivery_address_id"),
        ({"delivery_address_id": 2}, 422, "foreign_address", "#/delivery_address_id"),
        ({"items": [[9, 1]]}, 422, "unknown_reference", "#/items/0/product_id"),
        ({"items": [[1, 1], [1, 10]]}, 409, "out_of_stock", "#/items/0/quantity"),
        ({"items": [[1, 2**31 - 1]]}, 409, "out_of_stock", "#/items/0/quantity"),
        ({"items": []}, 422, "invalid_request", "#/items"),
        ({"items": None}, 422, "invalid_request", "#/items"),
        ({"items": [[1, 0]]}, 422, "invalid_request", "#/items/0/quantity"),
        ({"items": [[1, 2**31]]}, 422, "invalid_request", "#/items/0/quantity"),
        ({"items": [[1, True]]}, 422, "invalid_request", "#/items/0/quantity"),
        ({"items": [[2**63, 1]]}, 422, "invalid_request", "#/items/0/product_id"),
        ({"user_id": None}, 422, "invalid_request", "#/user_id"),
        ({"external_id": ""}, 422, "invalid_request", "#/external_id"),
        ({"external_id": "a\0"}, 422, "invalid_request", "#/external_id"),
        ({"status": "shipped"}, 422, "invalid_request", "#/status"),
        ({"total_price": 1}, 422, "invalid_request", "#/total_price"),
    ],
)
async def test_an_invalid_order_is_rejected_and_deducts_no_stock(
    api: httpx.AsyncClient, bad: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    await create_resource(api, "/users", {"username": "bob", "email": "bob@example.com"})
    await create_resource(api, "/users/2/addresses", ADDRESS)
    if bad.get("items"):
        items = [{"product_id": product, "quantity": n} for product, n in bad["items"]]
        bad = {"items": items}
    response = await api.post("/orders", json=order_body(**bad))
    assert (response.status_code, response.json()["code"]) == (status, code)
    (error,) = response.json()["errors"]
    assert (error["location"], error["pointer"]) == ("body", pointer)
    assert await fetch_stock(api) == 10
    assert (await api.get("/orders")).json() == {"orders": [], "total": 0}


async def test_an_order_with_too_large_a_total_is_rejected(api: httpx.AsyncClient) -> None:
    await create_resource(
        api, "/products", {**PRODUCT, "price": 9999999999.99, "stock_quantity": 2}
    )
    two = [{"product_id": 2, "quantity": 2}]
    response = await api.post("/orders", json=order_body(items=two))
    assert (response.status_code, response.json()["code"]) == (422, "total_too_large")
    one = [{"product_id": 2, "quantity": 1}]
    assert (
        '"total_price":9999999999.99,'
        in (await api.post("/orders", json=order_body(items=one))).text
    )


async def test_an_order_passes_through_its_statuses(api: httpx.AsyncClient) -> None:
    await create_resource(api, "/orders", order_body(3))
    for status in ("paid", "paid", "shipped", "delivered"):
        response = await api.put("/orders/1", json={"status": status})
        assert (response.status_code, response.json()["status"]) == (200, status)
    response = await api.put("/orders/1", json={"status": "cancelled"})
    assert (response.status_code, response.json()["code"]) == (409, "status_forbids")
    assert response.json()["errors"][0]["pointer"] == "#/status"
    assert await fetch_stock(api) == 7


async def test_concurrent_cancellations_return_the_stock_once(api: httpx.AsyncClient) -> None:
    await create_resource(api, "/orders", order_body(3))
    responses = await asyncio.gather(
        *(api.put("/orders/1", json={"status": "cancelled"}) for _ in range(8))
    )
    assert {response.status_code for response in responses} == {200}
    assert await fetch_stock(api) == 10


async def test_items_and_address_of_an_order_are_replaced(api: httpx.AsyncClient) -> None:
    await create_resource(api, "/orders", order_body(3))
    await create_resource(api, "/users/1/addresses", ADDRESS)
    items = [{"product_id": 1, "quantity": 10}]
    response = await api.put("/orders/1", json={"items": items, "delivery_address_id": 2})
    assert response.json()["items"][0].items() >= items[0].items()
    assert (response.json()["total_price"], response.json()["delivery_address_id"]) == (35.0, 2)
    assert (await api.get("/orders/1")).json() == response.json()
    assert await fetch_stock(api) == 0


@pytest.mark.parametrize(
    ("bad", "pointer"),
    [
        ({"status": "lost"}, "#/status"),
        ({"items": []}, "#/items"),
        ({"delivery_address_id": 0}, "#/delivery_address_id"),
        ({"user_id": 1}, "#/user_id"),
        ({"external_id": "x"}, "#/external_id"),
    ],
)
async def test_an_invalid_change_is_rejected(
    api: httpx.AsyncClient, bad: dict[str, Any], pointer: str
) -> None:
    placed = await create_resource(api, "/orders", order_body(3))
    response = await api.put("/orders/1", json=bad)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == pointer
    assert (await api.get("/orders/1")).json() == placed
    assert (await api.put("/orders/1", json={})).json() == placed


async def test_deleting_an_order_returns_its_stock(api: httpx.AsyncClient) -> None:
    await create_resource(api, "/orders", order_body(3))
    assert (await api.delete("/orders/1")).status_code == 204
    assert (await api.delete("/orders/1")).json()["code"] == "order_not_found"
    assert await fetch_stock(api) == 10


async def test_a_reported_order_is_cancelled_and_not_deleted(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    placed = await create_resource(api, "/orders", order_body(3))
    on = datetime.fromisoformat(placed["created_at"]).astimezone(UTC).date()
    day = business_day(on, timezone="UTC")
    await build_report(engine, day)
    response = await api.delete("/orders/1")
    assert (response.status_code, response.json()["code"]) == (409, "order_reported")
    assert response.json()["detail"].endswith(f"the report of {on}; cancel it instead.")
    assert (await api.put("/orders/1", json={"status": "cancelled"})).status_code == 200
    assert await get_quantity_by_order(engine, on) == {1: 3}


async def test_orders_are_listed_newest_first_and_filtered(api: httpx.AsyncClient) -> None:
    await create_resource(api, "/users", {"username": "bob", "email": "bob@example.com"})
    await create_resource(api, "/users/2/addresses", ADDRESS)
    for user in (1, 2, 1, 2):
        await create_resource(api, "/orders", order_body(user_id=user, delivery_address_id=user))
    await api.put("/orders/3", json={"status": "paid"})

    async def found(query: str) -> tuple[list[int], int]:
        page = (await api.get(f"/orders?{query}")).json()
        assert all(len(one["items"]) == 1 for one in page["orders"])
        return [one["id"] for one in page["orders"]], page["total"]

    assert await found("") == ([4, 3, 2, 1], 4)
    assert await found("count=2&page=2") == ([2, 1], 4)
    assert await found("user_id=1") == ([3, 1], 2)
    assert await found("status=pending") == ([4, 2, 1], 3)
    assert await found("status=paid&user_id=2") == ([], 0)
    bad = await api.get("/orders?status=lost")
    assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (422, "#/status")
