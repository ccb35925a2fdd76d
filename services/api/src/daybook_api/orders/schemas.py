"""Request and response bodies of orders."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from daybook_api.dates import Day
from daybook_api.money import Money
from daybook_api.pagination import PageQuery, PathId
from daybook_domain.errors import Invalid
from daybook_domain.orders.models import Order, OrderItem, OrderStatus
from daybook_domain.orders.order_validation import (
    MAX_ITEMS,
    ExternalId,
    InitialStatus,
    NewItem,
    NewOrder,
    Quantity,
)
from daybook_domain.orders.service import OrderChanges
from daybook_domain.reports.business_day import business_day
from daybook_domain.validation import Id, Storable


class OrderItemIn(BaseModel):
    """A product and the ordered quantity."""

    model_config = ConfigDict(extra="forbid")

    product_id: Id
    quantity: Quantity


Items = Annotated[list[OrderItemIn], Field(min_length=1, max_length=MAX_ITEMS)]


def _new_items(items: Sequence[OrderItemIn]) -> tuple[NewItem, ...]:
    return tuple(NewItem(item.product_id, item.quantity) for item in items)


class OrderIn(BaseModel):
    """An order to place."""

    model_config = ConfigDict(extra="forbid")

    user_id: Id
    delivery_address_id: Id = Field(description="Id of an address of the user.")
    items: Items
    external_id: Annotated[
        ExternalId | None,
        Field(description="Key of the order in your system; repeating it creates no second order."),
    ] = None
    # Left out of the digest of an idempotent request when it is null, so that a request is
    # recognised that was first sent to a release without this field.
    status: InitialStatus | None = Field(
        default=None,
        description="Status of the new order; `pending` if omitted or null.",
        exclude_if=lambda value: value is None,
    )

    def to_domain(self) -> NewOrder:
        """Return the order to place."""
        return NewOrder(
            user_id=self.user_id,
            delivery_address_id=self.delivery_address_id,
            items=_new_items(self.items),
            external_id=self.external_id,
            status=OrderStatus(self.status or OrderStatus.PENDING),
        )


class OrderPatch(BaseModel):
    """Changes of an order; omitted and null fields remain as they are."""

    model_config = ConfigDict(extra="forbid")

    status: OrderStatus | None = None
    delivery_address_id: Id | None = None
    items: Items | None = None

    def changes(self) -> OrderChanges:
        """Return the fields to change."""
        changes: OrderChanges = {}
        if self.status is not None:
            changes["status"] = self.status
        if self.delivery_address_id is not None:
            changes["delivery_address_id"] = self.delivery_address_id
        if self.items is not None:
            changes["items"] = _new_items(self.items)
        return changes


class OrderItemOut(BaseModel):
    """A product and the ordered quantity, with the price when it was ordered."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    product_id: int
    quantity: int
    price_at_order: Money


class OrderOut(BaseModel):
    """An order of a user."""

    id: int
    external_id: str | None
    user_id: int
    delivery_address_id: int
    total_price: Money
    status: OrderStatus
    order_date: datetime
    created_at: datetime
    updated_at: datetime
    items: list[OrderItemOut]

    @classmethod
    def of(cls, order: Order, items: Sequence[OrderItem]) -> Self:
        """Return the response body for an order."""
        return cls(
            **order.model_dump(include=cls.model_fields.keys() - {"items"}),
            items=[OrderItemOut.model_validate(item) for item in items],
        )


class Orders(BaseModel):
    """A page of orders, newest first."""

    orders: list[OrderOut]
    total: int


class OrdersQuery(PageQuery):
    """Filters and page of the list of orders."""

    user_id: PathId | None = None
    status: OrderStatus | None = None
    external_id: Annotated[
        Annotated[str, Storable] | None,
        Field(max_length=200, description="The exact key of the order in your system."),
    ] = None
    first: Day | None = Field(
        default=None,
        alias="from",
        description="First business day of the orders' creation, inclusive.",
    )
    last: Day | None = Field(
        default=None,
        alias="to",
        description="Last business day of the orders' creation, inclusive.",
    )

    def instants(self, *, timezone: str) -> tuple[datetime | None, datetime | None]:
        """Return the half-open interval of the business days. Raises `Invalid`."""
        if self.first and self.last and self.first > self.last:
            raise Invalid(f"`from` ({self.first}) is after `to` ({self.last}).", field="from")
        return (
            None if self.first is None else business_day(self.first, timezone=timezone).starts_at,
            None if self.last is None else business_day(self.last, timezone=timezone).ends_at,
        )
