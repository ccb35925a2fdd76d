"""Queries on orders and their items."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func
from sqlmodel import col, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.orders.errors import OrderNotFound
from daybook_domain.orders.models import Order, OrderItem, OrderStatus


async def get_order(session: AsyncSession, order_id: int) -> Order:
    """Return an order, or raise `OrderNotFound`."""
    return _require_order(await session.get(Order, order_id), order_id)


async def get_order_for_update(session: AsyncSession, order_id: int) -> Order:
    """Return and lock an order (FOR NO KEY UPDATE), or raise `OrderNotFound`."""
    statement = (
        select(Order)
        .where(Order.id == order_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return _require_order((await session.exec(statement)).one_or_none(), order_id)


async def get_order_for_delete(session: AsyncSession, order_id: int) -> Order:
    """Return and lock an order (FOR UPDATE), or raise `OrderNotFound`."""
    statement = (
        select(Order)
        .where(Order.id == order_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return _require_order((await session.exec(statement)).one_or_none(), order_id)


async def list_items(session: AsyncSession, order_ids: Iterable[int]) -> dict[int, list[OrderItem]]:
    """Return the items of each order, by order id; items are sorted by id."""
    items: dict[int, list[OrderItem]] = {order_id: [] for order_id in order_ids}
    statement = (
        select(OrderItem).where(col(OrderItem.order_id).in_(items)).order_by(col(OrderItem.id))
    )
    for item in (await session.exec(statement)).all():
        items[item.order_id].append(item)
    return items


async def list_orders(
    session: AsyncSession,
    *,
    user_id: int | None = None,
    status: OrderStatus | None = None,
    external_id: str | None = None,
    created_from: datetime | None = None,
    created_before: datetime | None = None,
    before: tuple[datetime, int] | None = None,
    limit: int,
    offset: int = 0,
) -> tuple[Sequence[Order], int]:
    """Return a page of the matching orders, newest first, and their total number.

    `before` is the `(created_at, id)` of the last order of a page; the total counts all pages.
    """
    conditions = []
    if user_id is not None:
        conditions.append(col(Order.user_id) == user_id)
    if status is not None:
        conditions.append(col(Order.status) == status)
    if external_id is not None:
        conditions.append(col(Order.external_id) == external_id)
    if created_from is not None:
        conditions.append(col(Order.created_at) >= created_from)
    if created_before is not None:
        conditions.append(col(Order.created_at) < created_before)
    rows = (
        select(Order)
        .where(*conditions)
        # Orders of one transaction have the same `created_at`.
        .order_by(col(Order.created_at).desc(), col(Order.id).desc())
        .limit(limit)
        .offset(offset)
    )
    if before is not None:
        rows = rows.where(tuple_(col(Order.created_at), col(Order.id)) < before)
    count: Any = select(func.count()).select_from(Order).where(*conditions)
    return (await session.exec(rows)).all(), (await session.exec(count)).one()


def _require_order(order: Order | None, order_id: int) -> Order:
    if order is None:
        raise OrderNotFound(f"Order {order_id} does not exist.")
    return order
