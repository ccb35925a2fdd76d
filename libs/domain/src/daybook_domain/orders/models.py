"""Tables of orders and their items."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import CheckConstraint, Index
from sqlmodel import Field

from daybook_domain.types import (
    Table,
    created_at,
    identity,
    money,
    reference,
    text_enum,
    updated_at,
)


class OrderStatus(StrEnum):
    """The status of an order; `TRANSITIONS` in service.py lists the allowed changes."""

    PENDING = "pending"
    PAID = "paid"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class Order(Table, table=True):
    """An order of a user; `created_at` determines its business day."""

    __tablename__ = "orders"
    __table_args__ = (
        CheckConstraint("total_price >= 0", name="total_price_not_negative"),
        # The build reads the ids of a day's orders with an index-only scan.
        Index("ix_orders_created_at", "created_at", postgresql_include=["id"]),
        # Pages of the API, newest first.
        Index("ix_orders_user_id", "user_id", "created_at", "id"),
        Index("ix_orders_status", "status", "created_at", "id"),
    )

    id: int | None = identity()
    external_id: str | None = Field(default=None, max_length=200, unique=True)
    request_digest: str | None = Field(default=None, max_length=64)
    """Digest of the original content, if the order has an external id; see `NewOrder.digest`."""
    user_id: int = reference("users.id")
    delivery_address_id: int = reference("addresses.id", index=True)
    total_price: Decimal = Field(sa_type=money())
    status: OrderStatus = Field(
        default=OrderStatus.PENDING, sa_type=text_enum(OrderStatus, name="status")
    )
    order_date: datetime = created_at()
    created_at: datetime = created_at()
    updated_at: datetime = updated_at()


class OrderItem(Table, table=True):
    """A quantity of one product in one order, with the price at which it was ordered."""

    __tablename__ = "order_items"
    __table_args__ = (
        CheckConstraint("quantity > 0", name="quantity_positive"),
        CheckConstraint("price_at_order > 0", name="price_positive"),
        # The build sums quantities by order with an index-only scan.
        Index("ix_order_items_order_id", "order_id", postgresql_include=["quantity"]),
    )

    id: int | None = identity()
    order_id: int = reference("orders.id", ondelete="CASCADE")
    product_id: int = reference("products.id", index=True)
    quantity: int
    price_at_order: Decimal = Field(sa_type=money())
    created_at: datetime = created_at()
