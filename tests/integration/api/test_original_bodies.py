"""Request bodies of the clients of the system that Daybook replaced, with the same meaning."""

from typing import Any

import httpx
import pytest

from daybook_api.orders.schemas import OrderIn
from tests.support.http import (
    ADDRESS,
    PRODUCT,
    USER,
    create_resource,
    create_shop,
    fetch_stock,
    order_body,
)

CREATED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("/users", {**USER, "description": None}, {"description": None}),
    ("/users", {**USER, "description": "a customer"}, {"description": "a customer"}),
    (
        "/users/1/addresses",
        {**ADDRESS, "state": None, "is_primary": None},
        {"state": None, "is_primary": False},
    ),
    (
        "/users/1/addresses",
        {**ADDRESS, "state": "Vestland", "is_primary": True},
        {"state": "Vestland", "is_primary": True},
    ),
    ("/products", {"name": "pot", "price": 3}, {"description": None, "stock_quantity": 0}),
    (
        "/products",
        {"name": "pot", "price": 3, "description": None, "stock_quantity": None},
        {"description": None, "stock_quantity": 0},
    ),
    (
        "/products",
        {"name": "pot", "price": 3, "description": "black", "stock_quantity": 4},
        {"description": "black", "stock_quantity": 4},
    ),
    ("/orders", order_body(), {"status": "pending", "external_id": None}),
    (
        "/orders",
        order_body(status=None, external_id=None),
        {"status": "pending", "external_id": None},
    ),
    ("/orders", order_body(status="pending"), {"status": "pending"}),
    ("/orders", order_body(status="paid", external_id="a"), {"status": "paid", "external_id": "a"}),
]


@pytest.mark.parametrize(("path", "body", "created"), CREATED)
async def test_optional_fields_of_a_new_entity_may_be_present_absent_or_null(
    api: httpx.AsyncClient, path: str, body: dict[str, Any], created: dict[str, Any]
) -> None:
    if path != "/users":
        await create_shop(api)

    response = await api.post(path, json=body)

    assert response.status_code == 201, response.text
    assert response.json().items() >= created.items()


CHANGED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("/users/1", {"username": None, "email": None, "description": "b"}, {"description": "b"}),
    (
        "/users/1/addresses/1",
        {**dict.fromkeys((*ADDRESS, "state", "is_primary")), "city": "Oslo"},
        {"city": "Oslo"},
    ),
    ("/products/1", {**dict.fromkeys((*PRODUCT, "description")), "price": 10.5}, {"price": 10.5}),
    (
        "/orders/1",
        {"status": "paid", "delivery_address_id": None, "items": None},
        {"status": "paid"},
    ),
]


@pytest.mark.parametrize(("path", "body", "changed"), CHANGED)
async def test_null_leaves_a_field_unchanged(
    api: httpx.AsyncClient, path: str, body: dict[str, Any], changed: dict[str, Any]
) -> None:
    await create_shop(api)
    await api.put("/users/1", json={"description": "a"})
    await api.put("/users/1/addresses/1", json={"state": "Vestland", "is_primary": True})
    await api.put("/products/1", json={"description": "a"})
    await create_resource(api, "/orders", order_body(2))
    before = (await api.get(path)).json()

    nothing = await api.put(path, json=dict.fromkeys(body))
    response = await api.put(path, json=body)

    assert _without_times(nothing.json()) == _without_times(before)
    assert _without_times(response.json()) == _without_times(before) | changed


def _without_times(entity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entity.items() if name != "updated_at"}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/users/1", "description"),
        ("/users/1/addresses/1", "state"),
        ("/products/1", "description"),
    ],
)
async def test_an_empty_string_clears_an_optional_text(
    api: httpx.AsyncClient, path: str, field: str
) -> None:
    await create_shop(api)
    await api.put(path, json={field: "text"})

    assert (await api.put(path, json={field: ""})).json()[field] == ""


@pytest.mark.parametrize("before", [[], ["paid"], ["paid", "shipped"]])
async def test_completed_is_final_and_reachable_from_every_other_status(
    api: httpx.AsyncClient, before: list[str]
) -> None:
    await create_shop(api)
    await create_resource(api, "/orders", order_body(3))
    for status in (*before, "completed", "completed"):
        response = await api.put("/orders/1", json={"status": status})
        assert (response.status_code, response.json()["status"]) == (200, status)

    for status in ("pending", "paid", "shipped", "delivered", "cancelled"):
        response = await api.put("/orders/1", json={"status": status})
        assert (response.status_code, response.json()["code"]) == (409, "status_forbids")
    found = (await api.get("/orders", params={"status": "completed"})).json()
    assert (found["total"], await fetch_stock(api)) == (1, 7)


async def test_a_delivered_order_can_be_completed_and_a_cancelled_one_cannot(
    api: httpx.AsyncClient,
) -> None:
    await create_shop(api)
    await create_resource(api, "/orders", order_body())
    await create_resource(api, "/orders", order_body())
    for status in ("paid", "shipped", "delivered", "completed"):
        assert (await api.put("/orders/1", json={"status": status})).status_code == 200
    await api.put("/orders/2", json={"status": "cancelled"})

    assert (await api.put("/orders/2", json={"status": "completed"})).status_code == 409


@pytest.mark.parametrize("status", ["shipped", "completed", "cancelled", "lost", 1])
async def test_an_order_cannot_be_created_with_another_status(
    api: httpx.AsyncClient, status: object
) -> None:
    await create_shop(api)

    response = await api.post("/orders", json=order_body(status=status))

    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "#/status"


async def test_a_completed_order_returns_nothing_to_the_stock_when_it_is_deleted(
    api: httpx.AsyncClient,
) -> None:
    await create_shop(api)
    await create_resource(api, "/orders", order_body(3))
    await api.put("/orders/1", json={"status": "completed"})

    assert (await api.delete("/orders/1")).status_code == 204
    assert await fetch_stock(api) == 7


def test_an_order_without_a_status_has_the_idempotency_digest_of_earlier_releases() -> None:
    content = OrderIn.model_validate(order_body()).model_dump_json()

    assert content == (
        '{"user_id":1,"delivery_address_id":1,"items":[{"product_id":1,"quantity":1}],'
        '"external_id":null}'
    )
