"""Integration tests of /products."""

import httpx
import pytest

from tests.support.http import PRODUCT, create_resource

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
async def test_a_number_that_json_does_not_define_is_rejected(
    api: httpx.AsyncClient, number: str
) -> None:
    response = await api.post(
        "/products",
        content=f'{{"name": "tea", "price": {number}, "stock_quantity": 1}}',
        headers=JSON,
    )
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "#/price"


@pytest.mark.parametrize("price", ["0.01", "9.90", "19.99", "1234567.89", "9999999999.99"])
async def test_a_price_is_returned_as_an_exact_json_number(
    api: httpx.AsyncClient, price: str
) -> None:
    await create_resource(api, "/products", {**PRODUCT, "price": price})
    raw = (await api.get("/products/1")).text
    shown = raw.partition('"price":')[2].partition(",")[0]
    assert shown in {price, price.rstrip("0")}
    sent_back = await api.post("/products", json={**PRODUCT, "price": float(shown)})
    assert sent_back.json()["price"] == float(price)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("name=TEA", ["black_tea", "tea 100%"]),
        ("name=%25", ["tea 100%"]),
        ("name=_", ["black_tea"]),
        ("min_price=2", ["pot", "black_tea"]),
        ("max_price=2.00", ["black_tea", "tea 100%"]),
        ("min_price=2&max_price=2", ["black_tea"]),
        ("name=tea&min_price=1.5", ["black_tea"]),
    ],
)
async def test_products_are_filtered(api: httpx.AsyncClient, query: str, names: list[str]) -> None:
    for price, name in enumerate(("tea 100%", "black_tea", "pot"), start=1):
        await create_resource(api, "/products", {**PRODUCT, "name": name, "price": price})
    found = (await api.get(f"/products?{query}")).json()
    assert ([one["name"] for one in found["products"]], found["total"]) == (names, len(names))


@pytest.mark.parametrize(
    ("query", "pointer", "hint"),
    [
        ("min_price=3&max_price=2", "#/min_price", "is greater than `max_price`"),
        ("min_price=-1", "#/min_price", "greater than or equal to 0"),
        ("max_price=x", "#/max_price", "decimal"),
        ("max_price=NaN", "#/max_price", "finite"),
        ("name=%00", "#/name", "NUL"),
    ],
)
async def test_an_invalid_filter_is_rejected(
    api: httpx.AsyncClient, query: str, pointer: str, hint: str
) -> None:
    response = await api.get(f"/products?{query}")
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert (error["location"], error["pointer"]) == ("query", pointer)
    assert hint in error["detail"]
