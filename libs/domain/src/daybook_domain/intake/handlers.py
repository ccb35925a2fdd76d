"""What does a batch of messages do to the catalogue and the orders?

One outcome for each message, whatever the others are: what the domain refuses and what fails in a
way that nobody has foreseen are outcomes, too. Only an outage of the database is raised.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.catalog import service as catalog
from daybook_domain.catalog import stock
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
from daybook_domain.orders.errors import OrderNotFound, UnknownReference
from daybook_domain.orders.order_placement import NewItem, NewOrder, place_orders
from daybook_domain.postgres_errors import is_outage

log = structlog.stdlib.get_logger(__name__)

M = TypeVar("M", ProductMessage, ProductUpdateMessage, OrderMessage, OrderUpdateMessage)

_HOLD_ORDERS = text(
    """
    WITH held AS (
        SELECT id FROM orders WHERE id = ANY(CAST(:ids AS bigint[]))
        ORDER BY id FOR NO KEY UPDATE
    )
    SELECT DISTINCT item.product_id FROM held JOIN order_items AS item ON item.order_id = held.id
    """
)


@dataclass(frozen=True, slots=True)
class Applied:
    """It took effect; `subject` is what it brought into being, such as `product:7`."""

    subject: str | None = None
    duplicate: bool = False
    """It had taken effect before, and nothing was changed."""


HandlerResult = Applied | DaybookError


def missing_subject(refusal: DaybookError, message: AnyMessage) -> str | None:
    """Return what may still come and let `message` succeed, such as `product:7`; None: nothing."""
    if isinstance(refusal, ProductNotFound | OrderNotFound | Postponed):
        return get_subject(message)
    if isinstance(refusal, UnknownReference):
        return _reference(refusal.field or "", message)
    return None


def _reference(field: str, message: AnyMessage) -> str | None:
    match field.split("/"):
        case ["items", position, "product_id"] if isinstance(message, OrderMessage):
            return f"product:{message.items[int(position)].product_id}"
        case ["user_id"] if isinstance(message, OrderMessage):
            return f"user:{message.user_id}"
        case ["delivery_address_id"] if isinstance(message, OrderMessage):
            return f"address:{message.delivery_address_id}"
    # Updates keep their turn by what they are about, whatever one of them waits for.
    return get_subject(message)


async def apply_messages(
    session: AsyncSession, messages: Sequence[AnyMessage]
) -> list[HandlerResult]:
    """Apply `messages`: products first, then their updates, orders, and updates of these.

    What fails unforeseen is tried again by halves, until the one message is found that is to
    blame; it costs no other its effect.
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
    effects = await _apply_or_halve(session, [messages[position] for position in positions])
    by_position = dict(zip(positions, effects, strict=True))
    return [by_position[position] for position in range(len(messages))]


async def _apply_or_halve(
    session: AsyncSession, messages: Sequence[AnyMessage]
) -> list[HandlerResult]:
    try:
        async with session.begin_nested():
            return await _apply(session, messages)
    except Exception as error:  # Whatever it is, it must not block the queue.
        if is_outage(error):
            raise
        if len(messages) == 1:
            log.exception("a message failed in a way that nobody has foreseen")
            return [UnexpectedFailure(_told(error))]
    half = len(messages) // 2
    return [
        *await _apply_or_halve(session, messages[:half]),
        *await _apply_or_halve(session, messages[half:]),
    ]


async def _apply(session: AsyncSession, messages: Sequence[AnyMessage]) -> list[HandlerResult]:
    """Apply what is sorted by kind."""
    products, product_updates = _of(ProductMessage, messages), _of(ProductUpdateMessage, messages)
    new_orders, order_updates = _of(OrderMessage, messages), _of(OrderUpdateMessage, messages)
    if product_updates or order_updates:
        await _hold(session, product_updates, new_orders, order_updates)
    return [
        *await _add_products(session, products),
        *await _in_turn(session, product_updates, _change_product),
        *await _place(session, new_orders),
        *await _in_turn(session, order_updates, _change_order),
    ]


def _of(kind: type[M], messages: Sequence[AnyMessage]) -> list[M]:
    return [message for message in messages if isinstance(message, kind)]


async def _hold(
    session: AsyncSession,
    product_updates: Sequence[ProductUpdateMessage],
    new_orders: Sequence[OrderMessage],
    order_updates: Sequence[OrderUpdateMessage],
) -> None:
    """Lock, in the order of catalog/stock.py, all that is going to be locked one by one."""
    ids = sorted({message.order_id for message in order_updates})
    products = set((await session.execute(_HOLD_ORDERS, {"ids": ids})).scalars()) if ids else set()
    products |= {message.product_id for message in product_updates}
    for items in (
        *(message.items for message in new_orders),
        *(message.order_data.items or () for message in order_updates),
    ):
        products |= {item.product_id for item in items}
    await stock.get_products_for_update(session, products)


async def _add_products(
    session: AsyncSession, messages: Sequence[ProductMessage]
) -> Sequence[HandlerResult]:
    if not messages:
        return []
    new = [
        catalog.NewProduct(
            name=message.name,
            description=message.description,
            price=message.price,
            stock_quantity=message.stock_quantity,
        )
        for message in messages
    ]
    ids = await catalog.add_products(session, new)
    return [Applied(f"product:{product_id}") for product_id in ids]


async def _in_turn(
    session: AsyncSession,
    messages: Sequence[M],
    change: Callable[[AsyncSession, M], Awaitable[None]],
) -> Sequence[HandlerResult]:
    """Apply updates one by one; where one has to wait, those of the same subject wait behind it."""
    effects: list[HandlerResult] = []
    waiting: set[str | None] = set()
    for message in messages:
        effect: HandlerResult = Applied()
        try:
            if get_subject(message) in waiting:
                raise Postponed("an earlier update of the same waits, too")
            async with session.begin_nested():
                await change(session, message)
        except DaybookError as refusal:
            effect = refusal
            if missing_subject(refusal, message):
                waiting.add(get_subject(message))
        effects.append(effect)
    return effects


async def _change_product(session: AsyncSession, message: ProductUpdateMessage) -> None:
    data, changes = message.product_data, catalog.ProductChanges()
    for name in data.model_fields_set:
        match name:
            case "name":
                changes["name"] = data.name
            case "description":
                changes["description"] = data.description
            case "price":
                changes["price"] = data.price
            case "stock_quantity":
                changes["stock_quantity"] = data.stock_quantity
    await catalog.change_product(session, message.product_id, changes=changes)


async def _place(
    session: AsyncSession, messages: Sequence[OrderMessage]
) -> Sequence[HandlerResult]:
    if not messages:
        return []
    new = [
        NewOrder(
            user_id=message.user_id,
            delivery_address_id=message.delivery_address_id,
            items=_items(message.items),
            external_id=message.external_id,
        )
        for message in messages
    ]
    return [
        outcome
        if isinstance(outcome, DaybookError)
        else Applied(f"order:{outcome.order_id}", duplicate=outcome.duplicate)
        for outcome in await place_orders(session, new)
    ]


async def _change_order(session: AsyncSession, message: OrderUpdateMessage) -> None:
    data, changes = message.order_data, orders.OrderChanges()
    for name in data.model_fields_set:
        match name:
            case "status":
                changes["status"] = data.status
            case "delivery_address_id":
                changes["delivery_address_id"] = data.delivery_address_id
            case "items":
                changes["items"] = _items(data.items)
    await orders.change(session, message.order_id, changes=changes)


def _items(items: Sequence[OrderItemData]) -> tuple[NewItem, ...]:
    return tuple(NewItem(item.product_id, item.quantity) for item in items)


def _told(error: Exception) -> str:
    # Without the statement and its values, which SQLAlchemy adds.
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return f"{type(cause).__name__}: {cause}"
