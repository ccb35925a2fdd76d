"""What can be asked about orders? Reads; decides nothing."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.orders.errors import OrderNotFound
from daybook_domain.orders.models import Order, OrderItem, OrderStatus


async def get_order(session: AsyncSession, order_id: int) -> Order:
    """Return an order, or raise `OrderNotFound`."""
    order = await session.get(Order, order_id)
    if order is None:
        raise OrderNotFound(f"There is no order {order_id}.")
    return order


async def list_items(session: AsyncSession, order_ids: Iterable[int]) -> dict[int, list[OrderItem]]:
    """Return the items of each of these orders, in the order in which they were ordered."""
    found: dict[int, list[OrderItem]] = {order_id: [] for order_id in order_ids}
    statement = (
        select(OrderItem).where(col(OrderItem.order_id).in_(found)).order_by(col(OrderItem.id))
    )
    for item in (await session.exec(statement)).all():
        found[item.order_id].append(item)
    return found


async def list_orders(
    session: AsyncSession,
    *,
    user_id: int | None = None,
    status: OrderStatus | None = None,
    limit: int,
    offset: int,
) -> tuple[Sequence[Order], int]:
    """Return orders, newest first, and how many there are of them."""
    wanted = []
    if user_id is not None:
        wanted.append(col(Order.user_id) == user_id)
    if status is not None:
        wanted.append(col(Order.status) == status)
    rows = (
        select(Order)
        .where(*wanted)
        # Orders of one transaction have one `created_at`.
        .order_by(col(Order.created_at).desc(), col(Order.id).desc())
        .limit(limit)
        .offset(offset)
    )
    count: Any = select(func.count()).select_from(Order).where(*wanted)
    return (await session.exec(rows)).all(), (await session.exec(count)).one()
