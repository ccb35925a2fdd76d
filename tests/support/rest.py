"""How does a test fill a shop through REST?"""

from typing import Any

import httpx

USER = {"username": "ada", "email": "ada@example.com"}
ADDRESS = {"street": "Quay 1", "city": "Bergen", "zip_code": "5003", "country": "NO"}
PRODUCT = {"name": "tea", "price": 3.50, "stock_quantity": 10}


async def add(api: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Add something, and return it as shown."""
    answer = await api.post(path, json=body)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def open_shop(api: httpx.AsyncClient, *, pieces: int = 10) -> None:
    """Add a user, an address and a product at 3.50, each with id 1."""
    await add(api, "/users", USER)
    await add(api, "/users/1/addresses", ADDRESS)
    await add(api, "/products", {**PRODUCT, "stock_quantity": pieces})


def order(quantity: int = 1, **more: Any) -> dict[str, Any]:
    """Return the body of an order of teas."""
    items = [{"product_id": 1, "quantity": quantity}]
    return {"user_id": 1, "delivery_address_id": 1, "items": items, **more}


async def left(api: httpx.AsyncClient, product_id: int = 1) -> int:
    """Return how many pieces of a product are left."""
    pieces: int = (await api.get(f"/products/{product_id}")).json()["stock_quantity"]
    return pieces
