"""Message models of the intake queues, and their parsing. Pure.

The AsyncAPI document is generated from these models. Field limits are those of the REST API. An
optional field that is null has the same meaning as an absent one.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from daybook_domain.catalog.validation import Price, ProductDescription, ProductName, Stock
from daybook_domain.orders.models import OrderStatus
from daybook_domain.orders.order_validation import (
    MAX_ITEMS,
    ExternalId,
    InitialStatus,
    Quantity,
)
from daybook_domain.validation import Id

MAX_BODY_BYTES = 1_000_000
_MAX_UNKNOWN_FIELDS = 20
_MAX_FIELD_NAME_LENGTH = 100


class Queue(StrEnum):
    """The intake queues, in the order in which the messages of one batch are applied.

    The name is the routing key on the default exchange.
    """

    PRODUCT = "product"
    PRODUCT_UPDATE = "product_update"
    ORDER = "order"
    ORDER_UPDATE = "order_update"


class IntakeMessageModel(BaseModel):
    """Base of all message models: immutable.

    Unknown fields have no effect, since a producer may be newer than this release; they are
    retained for `list_unknown_fields`.
    """

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)


class ProductMessage(IntakeMessageModel):
    """A product to add."""

    name: ProductName
    description: ProductDescription | None = None
    price: Price
    stock_quantity: Stock | None = 0


class ProductData(IntakeMessageModel):
    """The new values of a product; absent and null fields stay unchanged."""

    name: ProductName | None = None
    description: ProductDescription | None = None
    price: Price | None = None
    stock_quantity: Stock | None = None


class ProductUpdateMessage(IntakeMessageModel):
    """A product to change."""

    product_id: Id
    product_data: ProductData


class OrderItemData(IntakeMessageModel):
    """A quantity of one product."""

    product_id: Id
    quantity: Quantity


Items = Annotated[tuple[OrderItemData, ...], Field(min_length=1, max_length=MAX_ITEMS)]


class OrderMessage(IntakeMessageModel):
    """An order to place; with an `external_id` it can safely be published again."""

    user_id: Id
    delivery_address_id: Id
    items: Items
    external_id: ExternalId | None = None
    status: InitialStatus | None = None


class OrderData(IntakeMessageModel):
    """The new values of an order; absent and null fields stay unchanged."""

    status: OrderStatus | None = None
    delivery_address_id: Id | None = None
    items: Items | None = None


class OrderUpdateMessage(IntakeMessageModel):
    """An order to change."""

    order_id: Id
    order_data: OrderData


AnyMessage = ProductMessage | ProductUpdateMessage | OrderMessage | OrderUpdateMessage

MODELS: Mapping[Queue, type[AnyMessage]] = {
    Queue.PRODUCT: ProductMessage,
    Queue.PRODUCT_UPDATE: ProductUpdateMessage,
    Queue.ORDER: OrderMessage,
    Queue.ORDER_UPDATE: OrderUpdateMessage,
}


def get_subject(message: AnyMessage) -> str | None:
    """Return what an update changes, such as `product:7`, or None for other messages.

    Updates of one subject are applied in the order in which they were received.
    """
    match message:
        case ProductUpdateMessage():
            return f"product:{message.product_id}"
        case OrderUpdateMessage():
            return f"order:{message.order_id}"
        case _:
            return None


def list_unknown_fields(message: AnyMessage) -> tuple[str, ...]:
    """Return the paths of the first fields that the models do not define, such as `items/*/note`.

    The number of paths and the length of a name are limited, since producers choose both.
    """
    found: dict[str, None] = {}
    for path in _iter_unknown_fields(message):
        found[path] = None
        if len(found) == _MAX_UNKNOWN_FIELDS:
            break
    return tuple(found)


def _iter_unknown_fields(model: IntakeMessageModel, prefix: str = "") -> Iterator[str]:
    for name in model.model_extra or ():
        yield f"{prefix}{name[:_MAX_FIELD_NAME_LENGTH]}"
    match model:
        case OrderMessage() | OrderData():
            for item in model.items or ():
                if item.model_extra:
                    yield from _iter_unknown_fields(item, f"{prefix}items/*/")
        case ProductUpdateMessage():
            yield from _iter_unknown_fields(model.product_data, "product_data/")
        case OrderUpdateMessage():
            yield from _iter_unknown_fields(model.order_data, "order_data/")
