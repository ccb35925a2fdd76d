"""Validation of orders: field types, prices, stock and duplicates of a batch. Pure."""

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from daybook_domain.catalog.stock import LockedProduct
from daybook_domain.catalog.validation import MAX_AMOUNT
from daybook_domain.errors import DaybookError
from daybook_domain.orders.errors import (
    AddressOfAnotherUser,
    ExternalIdTaken,
    NoItems,
    OutOfStock,
    TotalTooLarge,
    UnknownReference,
)
from daybook_domain.orders.models import OrderStatus
from daybook_domain.validation import MAX_INTEGER, Storable

MAX_ITEMS = 1000

ExternalId = Annotated[str, StringConstraints(min_length=1, max_length=200), Storable]
"""The sender's own key of an order, case-sensitive; makes a second delivery harmless."""
Quantity = Annotated[int, Field(ge=1, le=MAX_INTEGER, strict=True)]
InitialStatus = Literal["pending", "paid"]
"""The statuses that an order can be created with."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """A quantity of one product."""

    product_id: int
    quantity: int


@dataclass(frozen=True, slots=True)
class NewOrder:
    """The fields of an order to place; several items may have the same product."""

    user_id: int
    delivery_address_id: int
    items: tuple[NewItem, ...]
    external_id: str | None = None
    status: OrderStatus = OrderStatus.PENDING

    def digest(self) -> str:
        """Return a digest of the user, the address, the quantity of each product and the status.

        The order of the items, and how quantities are split between them, does not matter.
        """
        quantities = sorted(quantities_by_product(self.items).items())
        content = f"{self.user_id} {self.delivery_address_id} {quantities}"
        if self.status is not OrderStatus.PENDING:
            # Stored digests of pending orders were made when an order could have no other status.
            content += f" {self.status}"
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ExistingOrder:
    """A stored order; `digest` is that of the content with which it was placed."""

    order_id: int
    total_price: Decimal
    digest: str | None


@dataclass(frozen=True, slots=True)
class ReferenceData:
    """The stored rows that a batch of orders refers to."""

    users: Set[int]
    addresses: Mapping[int, int]
    """User id by address id."""
    products: Mapping[int, LockedProduct]
    existing: Mapping[str, ExistingOrder]
    """Orders by external id."""


@dataclass(frozen=True, slots=True)
class AcceptedOrder:
    """An order that can be placed; `prices` has one price per item."""

    order: NewOrder
    quantities: Mapping[int, int]
    prices: tuple[Decimal, ...]
    total_price: Decimal
    digest: str | None


@dataclass(frozen=True, slots=True)
class DuplicateInBatch:
    """A repetition of an order of the same batch; `of` is the index of the first one."""

    of: int


OrderDecision = AcceptedOrder | DuplicateInBatch | ExistingOrder | DaybookError


def validate_orders(orders: Sequence[NewOrder], data: ReferenceData) -> list[OrderDecision]:
    """Return one decision per order.

    Stock is allocated in the order of `orders`; an order is accepted as a whole or not at all.
    """
    stock = {product_id: product.stock for product_id, product in data.products.items()}
    accepted: dict[str, tuple[int, str]] = {}
    decisions: list[OrderDecision] = []
    for index, order in enumerate(orders):
        digest = None if order.external_id is None else order.digest()
        decision = _decide(order, digest, data, stock=stock, accepted=accepted)
        if isinstance(decision, AcceptedOrder):
            for product_id, quantity in decision.quantities.items():
                stock[product_id] -= quantity
            if order.external_id is not None and digest is not None:
                accepted[order.external_id] = (index, digest)
        decisions.append(decision)
    return decisions


def quantities_by_product(items: Sequence[NewItem]) -> dict[int, int]:
    """Return the total quantity of each product, by first occurrence."""
    quantities: dict[int, int] = {}
    for item in items:
        quantities[item.product_id] = quantities.get(item.product_id, 0) + item.quantity
    return quantities


def price_items(
    items: Sequence[NewItem], products: Mapping[int, LockedProduct]
) -> tuple[tuple[Decimal, ...], Decimal]:
    """Return the current price of each item, and the total.

    Raises `NoItems`, `UnknownReference` and `TotalTooLarge`.
    """
    if not items:
        raise NoItems("an order needs at least one item", field="items")
    for index, item in enumerate(items):
        if item.product_id not in products:
            raise UnknownReference(
                f"product {item.product_id} does not exist", field=f"items/{index}/product_id"
            )
    prices = tuple(products[item.product_id].price for item in items)
    total = sum(
        (price * item.quantity for price, item in zip(prices, items, strict=True)), Decimal(0)
    )
    if total > MAX_AMOUNT:
        raise TotalTooLarge(
            f"the total price is {total:,}; expected at most {MAX_AMOUNT:,}", field="items"
        )
    return prices, total


def require_stock(
    quantities: Mapping[int, int], stock: Mapping[int, int], *, items: Sequence[NewItem]
) -> None:
    """Raise `OutOfStock` for the first product whose quantity exceeds its stock.

    `quantities` are the totals of `items`, which give the error its field.
    """
    for product_id, quantity in quantities.items():
        if quantity > stock[product_id]:
            index = next(n for n, item in enumerate(items) if item.product_id == product_id)
            raise OutOfStock(
                f"{quantity} of product {product_id} requested, {stock[product_id]} in stock",
                field=f"items/{index}/quantity",
            )


def require_own_address(address_id: int, user_id: int, addresses: Mapping[int, int]) -> None:
    """Raise `AddressOfAnotherUser` unless the address belongs to the user."""
    if addresses[address_id] != user_id:
        raise AddressOfAnotherUser(
            f"address {address_id} does not belong to user {user_id}", field="delivery_address_id"
        )


def _decide(
    order: NewOrder,
    digest: str | None,
    data: ReferenceData,
    *,
    stock: Mapping[int, int],
    accepted: Mapping[str, tuple[int, str]],
) -> OrderDecision:
    try:
        duplicate = _find_duplicate(order, digest, data, accepted)
        return duplicate or _accept(order, digest, data, stock)
    except DaybookError as error:
        return error


def _find_duplicate(
    order: NewOrder,
    digest: str | None,
    data: ReferenceData,
    accepted: Mapping[str, tuple[int, str]],
) -> ExistingOrder | DuplicateInBatch | None:
    if order.external_id is None:
        return None
    existing = data.existing.get(order.external_id)
    if existing is not None:
        if existing.digest == digest:
            return existing
    elif order.external_id in accepted:
        index, first_digest = accepted[order.external_id]
        if first_digest == digest:
            return DuplicateInBatch(of=index)
    else:
        return None
    raise ExternalIdTaken(
        f"an order with external id {order.external_id} and other content exists;"
        " use a new external id for another order",
        field="external_id",
    )


def _accept(
    order: NewOrder, digest: str | None, data: ReferenceData, stock: Mapping[int, int]
) -> AcceptedOrder:
    if order.user_id not in data.users:
        raise UnknownReference(f"user {order.user_id} does not exist", field="user_id")
    if order.delivery_address_id not in data.addresses:
        raise UnknownReference(
            f"address {order.delivery_address_id} does not exist", field="delivery_address_id"
        )
    require_own_address(order.delivery_address_id, order.user_id, data.addresses)
    prices, total = price_items(order.items, data.products)
    quantities = quantities_by_product(order.items)
    require_stock(quantities, stock, items=order.items)
    return AcceptedOrder(
        order=order, quantities=quantities, prices=prices, total_price=total, digest=digest
    )
