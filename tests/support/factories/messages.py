"""Factories of intake messages: encoded bodies with valid defaults."""

import json
from typing import Any


def order_message(
    *, user: int = 1, address: int = 1, product: int = 1, quantity: int = 1, **fields: Any
) -> bytes:
    """Return the body of an order with one item; `fields` add to it or replace its fields."""
    items = [{"product_id": product, "quantity": quantity}]
    return encode_message(
        {"user_id": user, "delivery_address_id": address, "items": items} | fields
    )


def product_message(
    *, name: str = "coffee", price: float = 9.9, stock: int = 10, **fields: Any
) -> bytes:
    """Return the body of a product; `fields` add to it or replace its fields."""
    return encode_message({"name": name, "price": price, "stock_quantity": stock} | fields)


def product_update_message(product_id: int, **data: Any) -> bytes:
    """Return the body of an update of a product."""
    return encode_message({"product_id": product_id, "product_data": data})


def order_update_message(order_id: int, **data: Any) -> bytes:
    """Return the body of an update of an order."""
    return encode_message({"order_id": order_id, "order_data": data})


def encode_message(content: object) -> bytes:
    """Return `content` as UTF-8 JSON."""
    return json.dumps(content).encode()
