"""What do bodies of orders look like?"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from daybook_api.money import Money
from daybook_api.pagination import PageQuery, PathId
from daybook_domain.orders.models import Order, OrderItem, OrderStatus
from daybook_domain.orders.order_validation import (
    MAX_ITEMS,
    ExternalId,
    NewItem,
    NewOrder,
    Quantity,
)
from daybook_domain.orders.service import OrderChanges
from daybook_domain.validation import Id, unset_field


class ItemIn(BaseModel):
    """So many pieces of one product."""

    model_config = ConfigDict(extra="forbid")

    product_id: Id
    quantity: Quantity


Items = Annotated[list[ItemIn], Field(min_length=1, max_length=MAX_ITEMS)]


def _items(items: Sequence[ItemIn]) -> tuple[NewItem, ...]:
    return tuple(NewItem(item.product_id, item.quantity) for item in items)


class OrderIn(BaseModel):
    """An order to place."""

    model_config = ConfigDict(extra="forbid")

    user_id: Id
    delivery_address_id: Id = Field(description="One of the user's addresses.")
    items: Items
    external_id: Annotated[
        ExternalId | None,
        Field(description="Your own key: an order that comes again with it exists once."),
    ] = None

    def new(self) -> NewOrder:
        """Return what is to be placed."""
        return NewOrder(
            user_id=self.user_id,
            delivery_address_id=self.delivery_address_id,
            items=_items(self.items),
            external_id=self.external_id,
        )


class OrderPatch(BaseModel):
    """What is to be different about an order; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    status: OrderStatus = unset_field()
    delivery_address_id: Id = unset_field()
    items: Items = unset_field()

    def changes(self) -> OrderChanges:
        """Return what was named."""
        changes: OrderChanges = {}
        if "status" in self.model_fields_set:
            changes["status"] = self.status
        if "delivery_address_id" in self.model_fields_set:
            changes["delivery_address_id"] = self.delivery_address_id
        if "items" in self.model_fields_set:
            changes["items"] = _items(self.items)
        return changes


class ItemOut(BaseModel):
    """So many pieces of one product, at the price of that moment."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    product_id: int
    quantity: int
    price_at_order: Money


class OrderOut(BaseModel):
    """What a user ordered."""

    id: int
    external_id: str | None
    user_id: int
    delivery_address_id: int
    total_price: Money
    status: OrderStatus
    order_date: datetime
    created_at: datetime
    updated_at: datetime
    items: list[ItemOut]

    @classmethod
    def of(cls, order: Order, items: Sequence[OrderItem]) -> Self:
        """Return what is told about an order."""
        return cls(
            **order.model_dump(include=cls.model_fields.keys() - {"items"}),
            items=[ItemOut.model_validate(item) for item in items],
        )


class Orders(BaseModel):
    """A page of orders, newest first."""

    orders: list[OrderOut]
    total: int


class OrdersQuery(PageQuery):
    """Which orders to list."""

    user_id: PathId | None = None
    status: OrderStatus | None = None
