"""Integration tests of optimistic concurrency of users, products and orders."""

import asyncio

import httpx
import pytest

from tests.support.http import create_shop, order_body

CHANGES = [
    ("/users/1", {"description": "a"}, {"username": "grace"}),
    ("/products/1", {"price": 4}, {"stock_quantity": 7}),
    ("/orders/1", {"status": "paid"}, {"status": "cancelled"}),
]


@pytest.fixture
async def shop(api: httpx.AsyncClient) -> None:
    """Create a user, an address, a product and an order, each with id 1."""
    await create_shop(api)
    await api.post("/orders", json=order_body())


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(("path", "first", "second"), CHANGES)
async def test_a_change_of_an_outdated_version_is_refused(
    api: httpx.AsyncClient,
    shop: None,
    method: str,
    path: str,
    first: dict[str, object],
    second: dict[str, object],
) -> None:
    read = await api.get(path)
    condition = {"If-Match": read.headers["etag"]}

    changed = await api.request(method, path, json=first, headers=condition)
    lost = await api.request(method, path, json=second, headers=condition)
    foreign = await api.request(method, path, json=second, headers={"If-Match": '"foo"'})
    deleted = await api.delete(path, headers=condition)

    now = await api.get(path)
    assert [a.status_code for a in (changed, lost, foreign, deleted)] == [200, 412, 412, 412]
    assert {a.json()["code"] for a in (lost, foreign, deleted)} == {"outdated"}
    assert (now.json(), now.headers["etag"]) == (changed.json(), changed.headers["etag"])
    assert changed.headers["etag"] != read.headers["etag"]
    for tag in (f'"foo", {now.headers["etag"]}', "*"):
        again = await api.request(method, path, json=first, headers={"If-Match": tag})
        assert again.status_code == 200, again.text


@pytest.mark.parametrize(("path", "first", "second"), CHANGES)
async def test_only_one_of_two_concurrent_changes_of_a_version_succeeds(
    api: httpx.AsyncClient,
    shop: None,
    path: str,
    first: dict[str, object],
    second: dict[str, object],
) -> None:
    condition = {"If-Match": (await api.get(path)).headers["etag"]}

    responses = await asyncio.gather(
        *(api.put(path, json=body, headers=condition) for body in (first, second))
    )

    assert sorted(response.status_code for response in responses) == [200, 412]


async def test_the_tag_of_a_product_changes_with_an_order_of_it(
    api: httpx.AsyncClient, shop: None
) -> None:
    read = await api.get("/products/1")

    await api.post("/orders", json=order_body())
    response = await api.put(
        "/products/1", json={"stock_quantity": 10}, headers={"If-Match": read.headers["etag"]}
    )

    assert response.status_code == 412
