"""Which messages do producers send, and what is wrong with one that cannot be read? Pure.

The AsyncAPI document is made of these models; the limits of their fields are those of the REST API.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daybook_domain.catalog.validation import Price, ProductDescription, ProductName, Stock
from daybook_domain.errors import DaybookError
from daybook_domain.intake.errors import InvalidMessage, Malformed
from daybook_domain.orders.models import OrderStatus
from daybook_domain.orders.order_validation import MAX_ITEMS, ExternalId, Quantity
from daybook_domain.validation import Id, unset_field

MAX_BODY_BYTES = 1_000_000
_MOST_PROBLEMS = 5


class Queue(StrEnum):
    """Where producers send to: the name is the routing key on the default exchange.

    In the order in which the messages of one batch take effect.
    """

    PRODUCT = "product"
    PRODUCT_UPDATE = "product_update"
    ORDER = "order"
    ORDER_UPDATE = "order_update"


class IntakeMessageModel(BaseModel):
    """What all messages have in common: nothing may be in them that is not known here."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ProductMessage(IntakeMessageModel):
    """A product to add."""

    name: ProductName
    description: ProductDescription | None = None
    price: Price
    stock_quantity: Stock = 0


class ProductData(IntakeMessageModel):
    """What changes about a product; what is left out stays."""

    name: ProductName = unset_field()
    description: ProductDescription | None = None
    price: Price = unset_field()
    stock_quantity: Stock = unset_field()


class ProductUpdateMessage(IntakeMessageModel):
    """A product to change."""

    product_id: Id
    product_data: ProductData


class OrderItemData(IntakeMessageModel):
    """So many pieces of one product."""

    product_id: Id
    quantity: Quantity


Items = Annotated[tuple[OrderItemData, ...], Field(min_length=1, max_length=MAX_ITEMS)]


class OrderMessage(IntakeMessageModel):
    """An order to place; with an `external_id` it may be sent again without harm."""

    user_id: Id
    delivery_address_id: Id
    items: Items
    external_id: ExternalId | None = None


class OrderData(IntakeMessageModel):
    """What changes about an order; what is left out stays."""

    status: OrderStatus = unset_field()
    delivery_address_id: Id = unset_field()
    items: Items = unset_field()


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


def parse_message(queue: Queue, body: bytes) -> AnyMessage | DaybookError:
    """Return the message in `body`, or what is wrong with it: `Malformed`, `InvalidMessage`."""
    if len(body) > MAX_BODY_BYTES:
        return Malformed(f"has {len(body):,} bytes; expected at most {MAX_BODY_BYTES:,}")
    try:
        message = MODELS[queue].model_validate_json(body)
        # Of two values under one key, the sender may have meant either.
        json.loads(body, object_pairs_hook=_without_repetition)
    except ValidationError as error:
        return _explained(error)
    except Malformed as refusal:
        return refusal
    return message


def get_subject(message: AnyMessage) -> str | None:
    """Return what an update is about; updates of one subject keep their order."""
    match message:
        case ProductUpdateMessage():
            return f"product:{message.product_id}"
        case OrderUpdateMessage():
            return f"order:{message.order_id}"
        case _:
            return None


def _without_repetition(pairs: list[tuple[str, Any]]) -> None:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise Malformed(f"has the key {repeated!r} more than once")


def _explained(error: ValidationError) -> DaybookError:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        return Malformed(problems[0]["msg"])
    shown = [
        f"{'/'.join(map(str, problem['loc'])) or 'the message'}: "
        + problem["msg"].removeprefix("Value error, ")
        for problem in problems[:_MOST_PROBLEMS]
    ]
    if more := len(problems) - len(shown):
        shown.append(f"and {more} more")
    return InvalidMessage("; ".join(shown))
