"""Handlers of messages: changes of the catalogue and of orders.

Each message has its own result. Domain errors and unexpected errors are results too; only an outage
of the database is raised.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.catalog import products, stock
from daybook_domain.catalog.errors import ProductNotFound
from daybook_domain.errors import DaybookError
from daybook_domain.intake.errors import Postponed, UnexpectedFailure
from daybook_domain.intake.messages import (
    AnyMessage,
    OrderItemData,
    OrderMessage,
    OrderUpdateMessage,
    ProductMessage,
    ProductUpdateMessage,
    get_subject,
)
from daybook_domain.orders import service as orders
from daybook_domain.orders.errors import OrderNotFound, ReportBuilding, UnknownReference
from daybook_domain.orders.models import OrderStatus
from daybook_domain.orders.order_placement import place_orders
from daybook_domain.orders.order_validation import NewItem, NewOrder
from daybook_domain.postgres_errors import is_outage

log = structlog.stdlib.get_logger(__name__)

M = TypeVar("M", ProductMessage, ProductUpdateMessage, OrderMessage, OrderUpdateMessage)

_LOCK_ORDERS = text(
    """
    WITH locked AS (
        SELECT id FROM orders WHERE id = ANY(CAST(:ids AS bigint[]))
        ORDER BY id FOR NO KEY UPDATE
    )
    SELECT DISTINCT item.product_id
    FROM locked JOIN order_items AS item ON item.order_id = locked.id
    """
)


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of a message that took effect.

    `subject` is the row that it created, such as `product:7`.
    """

    subject: str | None = None
    duplicate: bool = False
    """Whether it took effect before, so that nothing was changed now."""


HandlerResult = Applied | DaybookError


def missing_subject(error: DaybookError, message: AnyMessage) -> str | None:
    """Return the row for which `message` can wait, such as `product:7`, or None.

    The row may be created, or change to a state in which the message succeeds.
    """
    if isinstance(error, ProductNotFound | OrderNotFound | Postponed | ReportBuilding):
        return get_subject(message)
    if isinstance(error, UnknownReference):
        return _referenced_subject(error.field or "", message)
    return None


def _referenced_subject(field: str, message: AnyMessage) -> str | None:
    match field.split("/"):
        case ["items", index, "product_id"] if isinstance(message, OrderMessage):
            return f"product:{message.items[int(index)].product_id}"
        case ["user_id"] if isinstance(message, OrderMessage):
            return f"user:{message.user_id}"
        case ["delivery_address_id"] if isinstance(message, OrderMessage):
            return f"address:{message.delivery_address_id}"
    # The subject of an update also defines the order of updates, so it waits under that subject
    # even if another row is missing.
    return get_subject(message)


async def apply_messages(
    session: AsyncSession, messages: Sequence[AnyMessage]
) -> list[HandlerResult]:
    """Apply messages: new products, product updates, new orders, then order updates.

    Return one result per message, in the order of `messages`. After an unexpected error the halves
    are retried separately, until the message that causes it is isolated; the others take effect.
    """
    if not messages:
        return []
    kinds = (ProductMessage, ProductUpdateMessage, OrderMessage, OrderUpdateMessage)
    positions = [
        position
        for kind in kinds
        for position, message in enumerate(messages)
        if isinstance(message, kind)
    ]
    results = await _apply_or_bisect(session, [messages[position] for position in positions])
    by_position = dict(zip(positions, results, strict=True))
    return [by_position[position] for position in range(len(messages))]


async def _apply_or_bisect(
    session: AsyncSession, messages: Sequence[AnyMessage]
) -> list[HandlerResult]:
    try:
        async with session.begin_nested():
            return await _apply(session, messages)
    except Exception as error:  # Any error: a single message must not block the queue.
        if is_outage(error):
            raise
        if len(messages) == 1:
            log.exception("message failed: unexpected error")
            return [UnexpectedFailure(_describe(error))]
    half = len(messages) // 2
    return [
        *await _apply_or_bisect(session, messages[:half]),
        *await _apply_or_bisect(session, messages[half:]),
    ]


async def _apply(session: AsyncSession, messages: Sequence[AnyMessage]) -> list[HandlerResult]:
    """Apply messages that are sorted by kind."""
    new_products = _filter(ProductMessage, messages)
    product_updates = _filter(ProductUpdateMessage, messages)
    new_orders = _filter(OrderMessage, messages)
    order_updates = _filter(OrderUpdateMessage, messages)
    if product_updates or order_updates:
        await _lock_orders_and_products(session, product_updates, new_orders, order_updates)
    return [
        *await _add_products(session, new_products),
        *await _apply_updates(session, product_updates, _change_product),
        *await _place_orders(session, new_orders),
        *await _apply_updates(session, order_updates, _change_order),
    ]


def _filter(kind: type[M], messages: Sequence[AnyMessage]) -> list[M]:
    return [message for message in messages if isinstance(message, kind)]


async def _lock_orders_and_products(
    session: AsyncSession,
    product_updates: Sequence[ProductUpdateMessage],
    new_orders: Sequence[OrderMessage],
    order_updates: Sequence[OrderUpdateMessage],
) -> None:
    """Lock all rows that the handlers will lock one by one, in the order of catalog/stock.py."""
    order_ids = sorted({message.order_id for message in order_updates})
    product_ids: set[int] = set()
    if order_ids:
        product_ids |= set((await session.execute(_LOCK_ORDERS, {"ids": order_ids})).scalars())
    product_ids |= {message.product_id for message in product_updates}
    for items in (
        *(message.items for message in new_orders),
        *(message.order_data.items or () for message in order_updates),
    ):
        product_ids |= {item.product_id for item in items}
    await stock.get_products_for_update(session, product_ids)


async def _add_products(
    session: AsyncSession, messages: Sequence[ProductMessage]
) -> Sequence[HandlerResult]:
    if not messages:
        return []
    new = [
        products.NewProduct(
            name=message.name,
            description=message.description,
            price=message.price,
            stock_quantity=message.stock_quantity or 0,
        )
        for message in messages
    ]
    ids = await products.add_products(session, new)
    return [Applied(f"product:{product_id}") for product_id in ids]


async def _apply_updates(
    session: AsyncSession,
    messages: Sequence[M],
    change: Callable[[AsyncSession, M], Awaitable[None]],
) -> Sequence[HandlerResult]:
    """Apply updates in sequence; if one has to wait, later ones of its subject wait too."""
    results: list[HandlerResult] = []
    waiting: set[str | None] = set()
    for message in messages:
        result: HandlerResult = Applied()
        try:
            if get_subject(message) in waiting:
                raise Postponed("an earlier update of the same subject is waiting")
            async with session.begin_nested():
                await change(session, message)
        except DaybookError as error:
            result = error
            if missing_subject(error, message):
                waiting.add(get_subject(message))
        results.append(result)
    return results


async def _change_product(session: AsyncSession, message: ProductUpdateMessage) -> None:
    data, changes = message.product_data, products.ProductChanges()
    if data.name is not None:
        changes["name"] = data.name
    if data.description is not None:
        changes["description"] = data.description
    if data.price is not None:
        changes["price"] = data.price
    if data.stock_quantity is not None:
        changes["stock_quantity"] = data.stock_quantity
    await products.change_product(session, message.product_id, changes=changes)


async def _place_orders(
    session: AsyncSession, messages: Sequence[OrderMessage]
) -> Sequence[HandlerResult]:
    if not messages:
        return []
    new = [
        NewOrder(
            user_id=message.user_id,
            delivery_address_id=message.delivery_address_id,
            items=_to_new_items(message.items),
            external_id=message.external_id,
            status=OrderStatus(message.status or OrderStatus.PENDING),
        )
        for message in messages
    ]
    return [
        placed
        if isinstance(placed, DaybookError)
        else Applied(f"order:{placed.order_id}", duplicate=placed.duplicate)
        for placed in await place_orders(session, new)
    ]


async def _change_order(session: AsyncSession, message: OrderUpdateMessage) -> None:
    data, changes = message.order_data, orders.OrderChanges()
    if data.status is not None:
        changes["status"] = data.status
    if data.delivery_address_id is not None:
        changes["delivery_address_id"] = data.delivery_address_id
    if data.items is not None:
        changes["items"] = _to_new_items(data.items)
    # A build may take minutes, and the products of the whole batch are locked.
    await orders.change(session, message.order_id, changes=changes, wait_for_build=False)


def _to_new_items(items: Sequence[OrderItemData]) -> tuple[NewItem, ...]:
    return tuple(NewItem(item.product_id, item.quantity) for item in items)


def _describe(error: Exception) -> str:
    # SQLAlchemy's own message contains the statement and its parameters.
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return f"{type(cause).__name__}: {cause}"
