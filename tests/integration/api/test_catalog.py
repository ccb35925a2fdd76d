"""Integration tests that users, addresses and products share."""

import json
from typing import Any

import httpx
import pytest

from tests.support.http import ADDRESS, PRODUCT, USER, create_resource, create_shop, order_body

JSON = {"Content-Type": "application/json"}
FEATURES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "users": ("/users", USER, {"username": "bob"}),
    "addresses": ("/users/1/addresses", ADDRESS, {"city": "Oslo", "state": None}),
    "products": ("/products", PRODUCT, {"price": "19.90", "description": "green"}),
}


@pytest.fixture(params=FEATURES)
async def feature(request: pytest.FixtureRequest, api: httpx.AsyncClient) -> Any:
    """Return the name and path of a feature, a body to create and one to change."""
    if request.param == "addresses":
        await create_resource(api, "/users", USER)
    return request.param, *FEATURES[request.param]


async def test_an_entity_is_created_read_changed_and_deleted(
    api: httpx.AsyncClient, feature: Any
) -> None:
    _, path, body, changes = feature
    response = await api.post(path, json=body)
    created = response.json()
    assert (response.status_code, response.headers["location"]) == (201, f"{path}/{created['id']}")
    assert created.items() >= body.items()
    assert (await api.get(response.headers["location"])).json() == created

    changed = await api.put(f"{path}/1", json=changes)
    assert changed.status_code == 200
    expected = {**created, **changes, "updated_at": changed.json()["updated_at"]}
    if "price" in expected:
        expected["price"] = float(expected["price"])
    assert changed.json() == expected
    assert changed.json()["updated_at"] > created["updated_at"]
    assert (await api.get(f"{path}/1")).json() == changed.json()

    deleted = await api.delete(f"{path}/1")
    assert (deleted.status_code, deleted.content) == (204, b"")
    for response in (
        await api.get(f"{path}/1"),
        await api.put(f"{path}/1", json={}),
        await api.delete(f"{path}/1"),
    ):
        assert response.status_code == 404
        assert response.json()["code"].endswith("_not_found")


async def test_an_empty_body_changes_nothing(api: httpx.AsyncClient, feature: Any) -> None:
    _, path, body, _ = feature
    created = await create_resource(api, path, body)
    assert (await api.put(f"{path}/1", json={})).json() == created


async def test_a_list_is_paginated_newest_first(api: httpx.AsyncClient, feature: Any) -> None:
    name, path, body, _ = feature
    for n in range(1, 13):
        unique = {"username": f"u{n}", "email": f"u{n}@example.com"} if name == "users" else {}
        await create_resource(api, path, {**body, **unique})
    first = (await api.get(path)).json()
    second = (await api.get(path, params={"page": 2})).json()
    past_the_end = (await api.get(path, params={"count": 5, "page": 4})).json()

    ids = [one["id"] for page in (first, second) for one in page[name]]
    total = first["total"]
    assert (len(first[name]), total) == (10, 12)
    assert ids == list(range(12, 0, -1))
    assert past_the_end == {name: [], "total": total}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("count=0", "#/count"),
        ("count=101", "#/count"),
        ("page=0", "#/page"),
        ("page=10001", "#/page"),
        ("page=x", "#/page"),
        ("sort=id", "#/sort"),
    ],
)
async def test_an_invalid_page_is_rejected(
    api: httpx.AsyncClient, feature: Any, query: str, pointer: str
) -> None:
    response = await api.get(f"{feature[1]}?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == pointer
    assert response.json()["errors"][0]["location"] == "query"


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("/users", {"username": ""}, "#/username"),
    ("/users", {"username": "x" * 101}, "#/username"),
    ("/users", {"username": 7}, "#/username"),
    ("/users", {"username": "a\0b"}, "#/username"),
    ("/users", {"username": "\ud800"}, "#/username"),
    ("/users", {"email": "ada"}, "#/email"),
    ("/users", {"description": "x" * 501}, "#/description"),
    ("/users", {"admin": True}, "#/admin"),
    ("/users/1/addresses", {"is_primary": 2}, "#/is_primary"),
    ("/users/1/addresses", {"street": " "}, "#/street"),
    ("/users/1/addresses", {"user_id": 2}, "#/user_id"),
    ("/products", {"name": "x" * 201}, "#/name"),
    ("/products", {"description": "x" * 1001}, "#/description"),
    ("/products", {"price": 0}, "#/price"),
    ("/products", {"price": 1.999}, "#/price"),
    ("/products", {"price": 1e10}, "#/price"),
    ("/products", {"stock_quantity": -1}, "#/stock_quantity"),
    ("/products", {"stock_quantity": 2**31}, "#/stock_quantity"),
    ("/products", {"stock_quantity": "many"}, "#/stock_quantity"),
]


@pytest.mark.parametrize(("path", "bad", "pointer"), REFUSED)
async def test_an_invalid_field_is_rejected_in_creations_and_changes(
    api: httpx.AsyncClient, path: str, bad: dict[str, Any], pointer: str
) -> None:
    await create_shop(api)
    bodies: dict[str, dict[str, Any]] = {
        "/users": {"username": "bob", "email": "bob@example.com"},
        "/users/1/addresses": ADDRESS,
        "/products": PRODUCT,
    }
    before = (await api.get(f"{path}/1")).json()
    for response in (
        await api.post(path, content=json.dumps({**bodies[path], **bad}), headers=JSON),
        await api.put(f"{path}/1", content=json.dumps(bad), headers=JSON),
    ):
        assert response.status_code == 422, response.text
        (error,) = response.json()["errors"]
        assert (error["location"], error["pointer"]) == ("body", pointer)
    assert (await api.get(f"{path}/1")).json() == before


@pytest.mark.parametrize(
    ("path", "field"),
    [("/users", "username"), ("/users/1/addresses", "city"), ("/products", "price")],
)
async def test_null_is_rejected_for_a_required_field_of_a_new_entity(
    api: httpx.AsyncClient, path: str, field: str
) -> None:
    await create_shop(api)
    bodies: dict[str, dict[str, Any]] = {
        "/users": {"username": "bob", "email": "bob@example.com"},
        "/users/1/addresses": ADDRESS,
        "/products": PRODUCT,
    }

    response = await api.post(path, json={**bodies[path], field: None})

    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == f"#/{field}"


async def test_an_entity_that_an_order_refers_to_cannot_be_deleted(api: httpx.AsyncClient) -> None:
    await create_shop(api)
    await create_resource(api, "/orders", order_body())
    for path in ("/users/1", "/users/1/addresses/1", "/products/1"):
        response = await api.delete(path)
        assert (response.status_code, response.json()["code"]) == (409, "in_use")
        assert "order" in response.json()["detail"].lower()
        assert (await api.get(path)).status_code == 200


@pytest.mark.parametrize("bad", ["0", "-1", "x", str(2**63), "1.5"])
async def test_a_malformed_id_is_rejected(api: httpx.AsyncClient, feature: Any, bad: str) -> None:
    response = await api.get(f"{feature[1]}/{bad}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["location"] == "path"
