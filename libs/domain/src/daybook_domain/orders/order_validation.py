"""Validation of orders: field types, prices, stock and duplicates of a batch. Pure."""

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

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
from daybook_domain.validation import MAX_INTEGER, Storable

MAX_ITEMS = 1000

ExternalId = Annotated[str, StringConstraints(min_length=1, max_length=200), Storable]
"""The sender's own key of an order, case-sensitive; makes a second delivery harmless."""
Quantity = Annotated[int, Field(ge=1, le=MAX_INTEGER, strict=True)]


@dataclass(frozen=True, slots=True)
class NewItem:
    """So many pieces of one product."""

    product_id: int
    quantity: int


@dataclass(frozen=True, slots=True)
class NewOrder:
    """What somebody wants to order; a product may come in several items."""

    user_id: int
    delivery_address_id: int
    items: tuple[NewItem, ...]
    external_id: str | None = None

    def digest(self) -> str:
        """Return the same for the same user, address and pieces of each product.

        In which items these pieces come, and in which order, makes no difference.
        """
        wanted = sorted(quantities_by_product(self.items).items())
        content = f"{self.user_id} {self.delivery_address_id} {wanted}"
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ExistingOrder:
    """An order that exists; `digest`: of the content that it was placed with."""

    order_id: int
    total_price: Decimal
    digest: str | None


@dataclass(frozen=True, slots=True)
class ReferenceData:
    """What the database says about all that a batch of orders names."""

    users: Set[int]
    addresses: Mapping[int, int]
    """The user of each address."""
    products: Mapping[int, LockedProduct]
    earlier: Mapping[str, ExistingOrder]
    """By external id."""


@dataclass(frozen=True, slots=True)
class AcceptedOrder:
    """An order that can be placed, with the price of each of its items."""

    order: NewOrder
    quantities: Mapping[int, int]
    prices: tuple[Decimal, ...]
    total_price: Decimal
    digest: str | None


@dataclass(frozen=True, slots=True)
class DuplicateInBatch:
    """An order that comes again within its batch; `of`: the place of the first, from 0."""

    of: int


OrderDecision = AcceptedOrder | DuplicateInBatch | ExistingOrder | DaybookError


def validate_orders(orders: Sequence[NewOrder], known: ReferenceData) -> list[OrderDecision]:
    """Return what can become of each order, first come first served; an order is all or nothing."""
    left = {product: held.left for product, held in known.products.items()}
    first: dict[str, tuple[int, str]] = {}
    outcomes: list[OrderDecision] = []
    for place, order in enumerate(orders):
        digest = None if order.external_id is None else order.digest()
        outcome = _decide(order, digest, known, left=left, first=first)
        if isinstance(outcome, AcceptedOrder):
            for product, wanted in outcome.quantities.items():
                left[product] -= wanted
            if order.external_id is not None and digest is not None:
                first[order.external_id] = (place, digest)
        outcomes.append(outcome)
    return outcomes


def quantities_by_product(items: Sequence[NewItem]) -> dict[int, int]:
    """Return how many pieces of each product are wanted, in the order of first mention."""
    wanted: dict[int, int] = {}
    for item in items:
        wanted[item.product_id] = wanted.get(item.product_id, 0) + item.quantity
    return wanted


def price_items(
    items: Sequence[NewItem], products: Mapping[int, LockedProduct]
) -> tuple[tuple[Decimal, ...], Decimal]:
    """Return the price of each item at this moment, and what all cost together.

    Raises `NoItems`, `UnknownReference` and `TotalTooLarge`.
    """
    if not items:
        raise NoItems("an order needs at least one item", field="items")
    for place, item in enumerate(items):
        if item.product_id not in products:
            raise UnknownReference(
                f"there is no product {item.product_id}", field=f"items/{place}/product_id"
            )
    prices = tuple(products[item.product_id].price for item in items)
    total = sum(
        (price * item.quantity for price, item in zip(prices, items, strict=True)), Decimal(0)
    )
    if total > MAX_AMOUNT:
        raise TotalTooLarge(
            f"the items cost {total:,} together; expected at most {MAX_AMOUNT:,}",
            field="items",
        )
    return prices, total


def require_stock(
    wanted: Mapping[int, int], left: Mapping[int, int], *, items: Sequence[NewItem]
) -> None:
    """Raise `OutOfStock` for the first product of which more is `wanted`, by `items`, than left."""
    for product, count in wanted.items():
        if count > left[product]:
            place = next(n for n, item in enumerate(items) if item.product_id == product)
            raise OutOfStock(
                f"{count} of product {product} are wanted, {left[product]} are left",
                field=f"items/{place}/quantity",
            )


def _decide(
    order: NewOrder,
    digest: str | None,
    known: ReferenceData,
    *,
    left: Mapping[int, int],
    first: Mapping[str, tuple[int, str]],
) -> OrderDecision:
    try:
        repeated = _known_already(order, digest, known, first)
        return repeated or _check(order, digest, known, left)
    except DaybookError as refusal:
        return refusal


def _known_already(
    order: NewOrder, digest: str | None, known: ReferenceData, first: Mapping[str, tuple[int, str]]
) -> ExistingOrder | DuplicateInBatch | None:
    if order.external_id is None:
        return None
    earlier = known.earlier.get(order.external_id)
    if earlier is not None:
        if earlier.digest == digest:
            return earlier
    elif order.external_id in first:
        place, its_digest = first[order.external_id]
        if its_digest == digest:
            return DuplicateInBatch(of=place)
    else:
        return None
    raise ExternalIdTaken(
        f"an order with the external id {order.external_id} exists, of other content",
        field="external_id",
    )


def _check(
    order: NewOrder, digest: str | None, known: ReferenceData, left: Mapping[int, int]
) -> AcceptedOrder:
    if order.user_id not in known.users:
        raise UnknownReference(f"there is no user {order.user_id}", field="user_id")
    if order.delivery_address_id not in known.addresses:
        raise UnknownReference(
            f"there is no address {order.delivery_address_id}", field="delivery_address_id"
        )
    require_own_address(order.delivery_address_id, order.user_id, known.addresses)
    prices, total = price_items(order.items, known.products)
    wanted = quantities_by_product(order.items)
    require_stock(wanted, left, items=order.items)
    return AcceptedOrder(
        order=order, quantities=wanted, prices=prices, total_price=total, digest=digest
    )


def require_own_address(address_id: int, user_id: int, owners: Mapping[int, int]) -> None:
    """Raise `ForeignAddress` unless the address is the user's."""
    if owners[address_id] != user_id:
        raise AddressOfAnotherUser(
            f"address {address_id} is not one of user {user_id}", field="delivery_address_id"
        )
