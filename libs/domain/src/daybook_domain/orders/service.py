"""What can be decided about an order that exists? Writes, inside the caller's transaction.

pending ──▶ paid ──▶ shipped ──▶ delivered
   │          │
   └──────────┴──▶ cancelled      gives the stock back

Locks are taken in the order that catalog/stock.py tells.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from sqlalchemy import delete as sql_delete
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.catalog import stock
from daybook_domain.catalog.models import Address
from daybook_domain.orders import queries
from daybook_domain.orders.errors import (
    OrderNotFound,
    OrderReported,
    StatusConflict,
    StockLimitExceeded,
    UnknownReference,
)
from daybook_domain.orders.models import Order, OrderItem, OrderStatus
from daybook_domain.orders.order_validation import (
    NewItem,
    price_items,
    quantities_by_product,
    require_own_address,
    require_stock,
)
from daybook_domain.runs import order_rebuilds
from daybook_domain.validation import MAX_INTEGER

TRANSITIONS: Mapping[OrderStatus, Sequence[OrderStatus]] = {
    OrderStatus.PENDING: (OrderStatus.PAID, OrderStatus.CANCELLED),
    OrderStatus.PAID: (OrderStatus.SHIPPED, OrderStatus.CANCELLED),
    OrderStatus.SHIPPED: (OrderStatus.DELIVERED,),
    OrderStatus.DELIVERED: (),
    OrderStatus.CANCELLED: (),
}
"""What may become of an order."""

UNSHIPPED = (OrderStatus.PENDING, OrderStatus.PAID)
"""The pieces are still in the house: they can be put back, or sent elsewhere."""


class OrderChanges(TypedDict, total=False):
    """What is to be different about an order; what is left out stays."""

    status: OrderStatus
    delivery_address_id: int
    items: tuple[NewItem, ...]


async def change(session: AsyncSession, order_id: int, *, changes: OrderChanges) -> Order:
    """Change an order, in all or in nothing; what it is already changes nothing.

    New items replace all old ones, at the prices of this moment; a report that counts the order
    is built again. Raises `OrderNotFound`, `StatusForbids`, `OutOfStock`, `StockFull`,
    `UnknownReference`, `ForeignAddress`, `NoItems` and `TotalTooLarge`.
    """
    order = await _hold(session, order_id)
    status = changes.get("status", order.status)
    _require_transition(order.status, status)
    address_id = changes.get("delivery_address_id", order.delivery_address_id)
    if address_id != order.delivery_address_id:
        await _require_address(session, order, address_id)
    old = await _items(session, order_id)
    new = changes.get("items", old)
    cancelled = status is OrderStatus.CANCELLED and order.status is not status
    if quantities_by_product(new) != quantities_by_product(old):
        await _replace(session, order, old=old, new=new, cancelled=cancelled)
    elif cancelled:
        await _return(session, old)
    # Not before: the session would write the row with its next statement, ahead of the products.
    order.status = status
    order.delivery_address_id = address_id
    await session.flush()
    await session.refresh(order)
    return order


async def delete(session: AsyncSession, order_id: int) -> None:
    """Delete an order, and put the pieces back that are still in the house.

    Raises `OrderNotFound`, and `OrderReported` when a report counts it.
    """
    order = await _hold(session, order_id, to_delete=True)
    days = await order_rebuilds.lock_report_dates(
        session, order_id=order_id, created_at=order.created_at
    )
    if days:
        raise OrderReported(
            f"Order {order_id} is counted by the report of {days[0]}; cancel it instead."
        )
    if order.status in UNSHIPPED:
        await _return(session, await _items(session, order_id))
    await session.execute(sql_delete(Order).where(col(Order.id) == order_id))


async def _hold(session: AsyncSession, order_id: int, *, to_delete: bool = False) -> Order:
    statement = (
        select(Order)
        .where(Order.id == order_id)
        .with_for_update(key_share=not to_delete)
        .execution_options(populate_existing=True)
    )
    order = (await session.exec(statement)).one_or_none()
    if order is None:
        raise OrderNotFound(f"There is no order {order_id}.")
    return order


async def _items(session: AsyncSession, order_id: int) -> tuple[NewItem, ...]:
    items = (await queries.list_items(session, [order_id]))[order_id]
    return tuple(NewItem(item.product_id, item.quantity) for item in items)


def _require_transition(before: OrderStatus, after: OrderStatus) -> None:
    if after is before or after in TRANSITIONS[before]:
        return
    allowed = " or ".join(TRANSITIONS[before])
    raise StatusConflict(
        f"a {before} order cannot become {after}; "
        + (f"it can become {allowed}" if allowed else "it stays as it is"),
        field="status",
    )


async def _require_address(session: AsyncSession, order: Order, address_id: int) -> None:
    if order.status not in UNSHIPPED:
        raise StatusConflict(
            f"a {order.status} order has its address; only a pending or paid one can get another",
            field="delivery_address_id",
        )
    # Until the transaction ends nobody deletes it; to change it they may.
    statement = (
        select(Address)
        .where(Address.id == address_id)
        .with_for_update(read=True, key_share=True)
        .execution_options(populate_existing=True)
    )
    address = (await session.exec(statement)).one_or_none()
    if address is None:
        raise UnknownReference(f"there is no address {address_id}", field="delivery_address_id")
    require_own_address(address_id, order.user_id, {address_id: address.user_id})


async def _replace(
    session: AsyncSession,
    order: Order,
    *,
    old: Sequence[NewItem],
    new: Sequence[NewItem],
    cancelled: bool,
) -> None:
    """Replace the items, whose number of pieces is another; a cancelled order holds none."""
    if order.status is not OrderStatus.PENDING:
        raise StatusConflict(
            f"a {order.status} order keeps its items; only a pending one can get others",
            field="items",
        )
    assert order.id is not None
    await order_rebuilds.request_rebuild(
        session,
        order_id=order.id,
        created_at=order.created_at,
        reason=f"the items of order {order.id} were changed",
    )
    products = await stock.get_products_for_update(
        session, (item.product_id for item in (*old, *new))
    )
    prices, order.total_price = price_items(new, products)
    back = quantities_by_product(old)
    if cancelled:
        await _put_back(session, back, products)
    else:
        taken = quantities_by_product(new)
        left = {key: held.left + back.get(key, 0) for key, held in products.items()}
        require_stock(taken, left, items=new)
        await stock.deduct(session, {key: taken.get(key, 0) - back.get(key, 0) for key in products})
    await session.execute(sql_delete(OrderItem).where(col(OrderItem.order_id) == order.id))
    session.add_all(
        OrderItem(
            order_id=order.id,
            product_id=item.product_id,
            quantity=item.quantity,
            price_at_order=price,
        )
        for item, price in zip(new, prices, strict=True)
    )


async def _return(session: AsyncSession, items: Sequence[NewItem]) -> None:
    back = quantities_by_product(items)
    await _put_back(session, back, await stock.get_products_for_update(session, back))


async def _put_back(
    session: AsyncSession, back: Mapping[int, int], products: Mapping[int, stock.LockedProduct]
) -> None:
    for product, count in back.items():
        if products[product].left + count > MAX_INTEGER:
            raise StockLimitExceeded(
                f"{count} of product {product} cannot be put back to {products[product].left};"
                f" the stock of a product is at most {MAX_INTEGER}"
            )
    await stock.deduct(session, {product: -count for product, count in back.items()})
