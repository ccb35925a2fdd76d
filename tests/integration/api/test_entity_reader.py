"""Reads of single users and products, rendered by Postgres."""

import httpx
import pytest

from tests.support.http import PRODUCT, USER, create_resource

TEXTS = [
    "plain",
    'quoted "text"',
    "back\\slash",
    "line\nbreak\ttab",
    "ünïcödé 🙂 \u2028",
    "</script>",
]


@pytest.mark.parametrize("text", TEXTS)
async def test_a_single_product_equals_its_entry_in_the_list(
    api: httpx.AsyncClient, text: str
) -> None:
    product = {"name": f"a{text}z", "description": text, "price": 1234.5, "stock_quantity": 7}
    added = await create_resource(api, "/products", product)

    single = await api.get(f"/products/{added['id']}")

    assert single.headers["content-type"] == "application/json"
    assert single.json() == added
    assert (await api.get("/products")).json()["products"] == [added]


@pytest.mark.parametrize("price", [0.01, 5, 19.9, 9_999_999_999.99])
async def test_a_single_product_shows_its_exact_price(api: httpx.AsyncClient, price: float) -> None:
    added = await create_resource(api, "/products", PRODUCT | {"price": price, "description": None})

    single = (await api.get(f"/products/{added['id']}")).json()

    assert (single["price"], single["description"]) == (price, None)


@pytest.mark.parametrize("text", TEXTS)
async def test_a_single_user_equals_its_entry_in_the_list(
    api: httpx.AsyncClient, text: str
) -> None:
    added = await create_resource(
        api, "/users", USER | {"username": f"a{text}z", "description": text}
    )

    assert (await api.get(f"/users/{added['id']}")).json() == added
    assert (await api.get("/users")).json()["users"] == [added]


@pytest.mark.parametrize("path", ["/users/1", "/products/1"])
async def test_a_missing_entity_is_a_problem(api: httpx.AsyncClient, path: str) -> None:
    response = await api.get(path)

    assert response.status_code == 404
    assert response.json()["code"] in {"user_not_found", "product_not_found"}
