"""Factories of users, addresses, products and orders that use the REST API."""

from typing import Any

import httpx

USER = {"username": "ada", "email": "ada@example.com"}
ADDRESS = {"street": "Quay 1", "city": "Bergen", "zip_code": "5003", "country": "NO"}
PRODUCT = {"name": "tea", "price": 3.50, "stock_quantity": 10}


async def create_resource(
    api: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> dict[str, Any]:
    """Create a resource with POST, and return its representation."""
    response = await api.post(path, json=body)
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


async def create_shop(api: httpx.AsyncClient, *, pieces: int = 10) -> None:
    """Create a user, an address and a product at 3.50, each with id 1 in an empty database."""
    await create_resource(api, "/users", USER)
    await create_resource(api, "/users/1/addresses", ADDRESS)
    await create_resource(api, "/products", {**PRODUCT, "stock_quantity": pieces})


def order_body(quantity: int = 1, **fields: Any) -> dict[str, Any]:
    """Return the body of an order of product 1; `fields` add to it or replace its fields."""
    items = [{"product_id": 1, "quantity": quantity}]
    return {"user_id": 1, "delivery_address_id": 1, "items": items, **fields}


async def fetch_stock(api: httpx.AsyncClient, product_id: int = 1) -> int:
    """Return the stock of a product."""
    stock: int = (await api.get(f"/products/{product_id}")).json()["stock_quantity"]
    return stock
