"""Changes and deletion of orders, in the caller's transaction.

pending ──▶ paid ──▶ shipped ──▶ delivered
   │          │
   └──────────┴──▶ cancelled      returns the items to stock

Every status but cancelled can also change to completed, which is final.

Locks are taken in the order that catalog/stock.py defines.
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
    OrderReported,
    ReportBuilding,
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
    OrderStatus.PENDING: (OrderStatus.PAID, OrderStatus.CANCELLED, OrderStatus.COMPLETED),
    OrderStatus.PAID: (OrderStatus.SHIPPED, OrderStatus.CANCELLED, OrderStatus.COMPLETED),
    OrderStatus.SHIPPED: (OrderStatus.DELIVERED, OrderStatus.COMPLETED),
    OrderStatus.DELIVERED: (OrderStatus.COMPLETED,),
    OrderStatus.COMPLETED: (),
    OrderStatus.CANCELLED: (),
}
"""The allowed changes of the status."""

UNSHIPPED = (OrderStatus.PENDING, OrderStatus.PAID)
"""Statuses in which the items can be returned to stock or sent to another address."""


class OrderChanges(TypedDict, total=False):
    """The new values of an order; absent keys stay unchanged."""

    status: OrderStatus
    delivery_address_id: int
    items: tuple[NewItem, ...]


async def change(
    session: AsyncSession, order_id: int, *, changes: OrderChanges, wait_for_build: bool = True
) -> Order:
    """Change an order; all changes are made or none.

    Values equal to the stored ones are ignored. New items replace all old ones, at current prices,
    and a report that contains the order is rebuilt. A change of the items waits for a build of that
    report; a caller that has locked products must not wait, and gets `ReportBuilding` instead.

    Raises `OrderNotFound`, `StatusConflict`, `OutOfStock`, `StockLimitExceeded`,
    `UnknownReference`, `AddressOfAnotherUser`, `NoItems` and `TotalTooLarge`.
    """
    order = await queries.get_order_for_update(session, order_id)
    status = changes.get("status", order.status)
    _require_transition(order.status, status)
    address_id = changes.get("delivery_address_id", order.delivery_address_id)
    if address_id != order.delivery_address_id:
        await _require_address(session, order, address_id)
    old = await _list_new_items(session, order_id)
    new = changes.get("items", old)
    cancelled = status is OrderStatus.CANCELLED and order.status is not status
    if quantities_by_product(new) != quantities_by_product(old):
        if not wait_for_build:
            await _require_no_build(session, order)
        await _replace_items(session, order, old=old, new=new, cancelled=cancelled)
    elif cancelled:
        await _restock(session, old)
    # Assigned last: the session flushes the row with its next statement, which must not happen
    # before the products are locked.
    order.status = status
    order.delivery_address_id = address_id
    await session.flush()
    await session.refresh(order)
    return order


async def delete(session: AsyncSession, order_id: int) -> None:
    """Delete an order, and return its items to stock if it is pending or paid.

    Raises `OrderNotFound`, and `OrderReported` if a report contains the order.
    """
    order = await queries.get_order_for_delete(session, order_id)
    days = await order_rebuilds.lock_report_dates(
        session, order_id=order_id, created_at=order.created_at
    )
    if days:
        raise OrderReported(
            f"Order {order_id} is counted by the report of {days[0]}; cancel it instead."
        )
    if order.status in UNSHIPPED:
        await _restock(session, await _list_new_items(session, order_id))
    await session.execute(sql_delete(Order).where(col(Order.id) == order_id))


async def _list_new_items(session: AsyncSession, order_id: int) -> tuple[NewItem, ...]:
    items = (await queries.list_items(session, [order_id]))[order_id]
    return tuple(NewItem(item.product_id, item.quantity) for item in items)


def _require_transition(before: OrderStatus, after: OrderStatus) -> None:
    if after is before or after in TRANSITIONS[before]:
        return
    allowed = " or ".join(TRANSITIONS[before])
    raise StatusConflict(
        f"a {before} order cannot become {after}; "
        + (f"it can become {allowed}" if allowed else "it has a final status"),
        field="status",
    )


async def _require_no_build(session: AsyncSession, order: Order) -> None:
    """Raise `ReportBuilding` if locking the dates of the order would wait."""
    if not await order_rebuilds.try_lock_report_dates(session, created_at=order.created_at):
        raise ReportBuilding(
            f"a report that may contain order {order.id} is being built; its items can be changed"
            " after that",
            field="items",
        )


async def _require_address(session: AsyncSession, order: Order, address_id: int) -> None:
    if order.status not in UNSHIPPED:
        raise StatusConflict(
            f"the address of a {order.status} order cannot be changed;"
            " expected a pending or paid order",
            field="delivery_address_id",
        )
    # FOR KEY SHARE: the address cannot be deleted until the transaction ends, but can be changed.
    statement = (
        select(Address)
        .where(Address.id == address_id)
        .with_for_update(read=True, key_share=True)
        .execution_options(populate_existing=True)
    )
    address = (await session.exec(statement)).one_or_none()
    if address is None:
        raise UnknownReference(f"address {address_id} does not exist", field="delivery_address_id")
    require_own_address(address_id, order.user_id, {address_id: address.user_id})


async def _replace_items(
    session: AsyncSession,
    order: Order,
    *,
    old: Sequence[NewItem],
    new: Sequence[NewItem],
    cancelled: bool,
) -> None:
    """Replace the items of an order, whose quantities differ, and adjust the stock.

    If the order is being `cancelled`, its new items are not deducted from stock.
    """
    if order.status is not OrderStatus.PENDING:
        raise StatusConflict(
            f"the items of a {order.status} order cannot be changed; expected a pending order",
            field="items",
        )
    assert order.id is not None
    await order_rebuilds.lock_report_dates(session, order_id=order.id, created_at=order.created_at)
    products = await stock.get_products_for_update(
        session, (item.product_id for item in (*old, *new))
    )
    # After the products, because a batch of messages has locked them before it gets here.
    await order_rebuilds.request_rebuild(
        session,
        order_id=order.id,
        created_at=order.created_at,
        reason=f"the items of order {order.id} were changed",
    )
    prices, order.total_price = price_items(new, products)
    returned = quantities_by_product(old)
    if cancelled:
        await _add_to_stock(session, returned, products)
    else:
        ordered = quantities_by_product(new)
        available = {key: each.stock + returned.get(key, 0) for key, each in products.items()}
        require_stock(ordered, available, items=new)
        await stock.deduct(
            session, {key: ordered.get(key, 0) - returned.get(key, 0) for key in products}
        )
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


async def _restock(session: AsyncSession, items: Sequence[NewItem]) -> None:
    returned = quantities_by_product(items)
    products = await stock.get_products_for_update(session, returned)
    await _add_to_stock(session, returned, products)


async def _add_to_stock(
    session: AsyncSession, returned: Mapping[int, int], products: Mapping[int, stock.LockedProduct]
) -> None:
    for product_id, quantity in returned.items():
        if products[product_id].stock + quantity > MAX_INTEGER:
            raise StockLimitExceeded(
                f"{quantity} of product {product_id} cannot be added to its stock of"
                f" {products[product_id].stock}; the maximum is {MAX_INTEGER}"
            )
    await stock.deduct(session, {product: -quantity for product, quantity in returned.items()})
