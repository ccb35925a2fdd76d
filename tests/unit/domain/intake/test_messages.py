"""Parsing of messages: accepted bodies, and the errors of malformed and invalid ones."""

import pytest

from daybook_domain.errors import DaybookError
from daybook_domain.intake.messages import (
    MAX_BODY_BYTES,
    OrderMessage,
    ProductMessage,
    Queue,
    list_unknown_fields,
)
from daybook_domain.intake.parsing import parse_message
from tests.support.factories.messages import (
    encode_message,
    order_message,
    order_update_message,
    product_message,
)

MALFORMED: dict[str, tuple[Queue, bytes, str]] = {
    "empty": (Queue.ORDER, b"", "EOF"),
    "not JSON": (Queue.ORDER, b"nonsense", "line 1 column"),
    "not UTF-8": (Queue.PRODUCT, b'{"name": "\xff"}', "unicode"),
    "UTF-16": (Queue.PRODUCT, product_message().decode().encode("utf-16"), "line 1"),
    "nested too deeply": (Queue.ORDER, b"[" * 100_000, "recursion"),
    "nested too deeply within": (Queue.ORDER, b'{"items":' + b"[" * 50_000, "recursion"),
    "too large": (Queue.ORDER, b" " * (MAX_BODY_BYTES + 1), "1,000,001 bytes"),
    "10 MB": (Queue.ORDER, order_message(external_id="x" * 10_000_000), "bytes"),
    "more after the end": (Queue.ORDER, order_message() + b"{}", "trailing"),
    "a key twice": (
        Queue.ORDER,
        order_message()[:-1] + b', "user_id": 2}',
        "'user_id' more than once",
    ),
}
INVALID: dict[str, tuple[Queue, bytes, str]] = {
    "a list": (Queue.ORDER, b"[1]", "object"),
    "null": (Queue.PRODUCT, b"null", "object"),
    "NaN": (Queue.PRODUCT, b'{"name": "a", "price": NaN}', "price"),
    "infinite": (Queue.PRODUCT, b'{"name": "a", "price": Infinity}', "price"),
    "no name": (Queue.PRODUCT, encode_message({"price": 1}), "name: Field required"),
    "free": (Queue.PRODUCT, product_message(price=0), "price: "),
    "a third of a cent": (Queue.PRODUCT, product_message(price=0.333), "price: "),
    "too dear": (Queue.PRODUCT, product_message(price=1e10), "price: "),
    "stock below zero": (Queue.PRODUCT, product_message(stock=-1), "stock_quantity: "),
    "too much stock": (Queue.PRODUCT, product_message(stock=2**31), "stock_quantity: "),
    "NUL": (Queue.PRODUCT, product_message(name="a\0b"), "name: contains a NUL"),
    "a boolean id": (Queue.ORDER, order_message(user=True), "user_id: "),
    "an id of text": (Queue.PRODUCT_UPDATE, encode_message({"product_id": "1"}), "product_id: "),
    "an id out of range": (Queue.ORDER, order_message(user=2**63), "user_id: "),
    "an enormous number": (Queue.ORDER, order_message(user=10**400), "user_id: "),
    "nothing ordered": (
        Queue.ORDER_UPDATE,
        order_update_message(1, items=[]),
        "order_data/items: ",
    ),
    "half a piece": (
        Queue.ORDER,
        order_message().replace(b'y": 1', b'y": 0.5'),
        "items/0/quantity: ",
    ),
    "no pieces": (Queue.ORDER, order_message(quantity=0), "items/0/quantity: "),
    "too many pieces": (Queue.ORDER, order_message(quantity=2**31), "items/0/quantity"),
    "an unknown status": (
        Queue.ORDER_UPDATE,
        order_update_message(1, status="lost"),
        "order_data/status",
    ),
    "a null that is required": (
        Queue.PRODUCT,
        encode_message({"name": None, "price": 1}),
        "name: ",
    ),
    "a status that no new order has": (Queue.ORDER, order_message(status="shipped"), "status: "),
    "an update of nothing": (
        Queue.PRODUCT_UPDATE,
        encode_message({"product_id": 1}),
        "product_data: ",
    ),
}


@pytest.mark.parametrize(("queue", "message", "hint"), MALFORMED.values(), ids=MALFORMED)
def test_an_unparsable_body_is_malformed(queue: Queue, message: bytes, hint: str) -> None:
    _assert_rejected(queue, message, code="malformed", hint=hint)


@pytest.mark.parametrize(("queue", "message", "hint"), INVALID.values(), ids=INVALID)
def test_a_body_that_violates_the_schema_is_invalid(
    queue: Queue, message: bytes, hint: str
) -> None:
    _assert_rejected(queue, message, code="invalid_message", hint=hint)


def _assert_rejected(queue: Queue, message: bytes, *, code: str, hint: str) -> None:
    error = parse_message(queue, message)

    assert isinstance(error, DaybookError)
    assert error.code == code
    assert hint in error.detail
    assert len(error.detail) < 1000


def test_the_length_of_the_error_is_limited() -> None:
    items = [{"product_id": 0, "quantity": 0}] * 1000

    error = parse_message(
        Queue.ORDER, encode_message({"user_id": 1, "delivery_address_id": 1, "items": items})
    )

    assert isinstance(error, DaybookError)
    assert error.detail.endswith(" more")
    assert len(error.detail) < 1000


def test_a_price_is_parsed_exactly() -> None:
    message = parse_message(Queue.PRODUCT, b'{"name": " tea ", "price": 9999999999.99}')

    assert isinstance(message, ProductMessage)
    assert (message.name, str(message.price)) == ("tea", "9999999999.99")


@pytest.mark.parametrize(
    ("queue", "message", "fields"),
    [
        (Queue.ORDER, order_message(), ()),
        (Queue.PRODUCT, product_message(colour="red", size=None), ("colour", "size")),
        (
            Queue.PRODUCT_UPDATE,
            encode_message({"product_id": 1, "product_data": {"colour": {"name": "red"}}, "by": 7}),
            ("by", "product_data/colour"),
        ),
        (
            Queue.ORDER,
            order_message(
                items=[
                    {"product_id": 1, "quantity": 1, "note": "a"},
                    {"product_id": 2, "quantity": 1, "note": "b", "gift": True},
                ]
            ),
            ("items/*/note", "items/*/gift"),
        ),
        (
            Queue.ORDER_UPDATE,
            order_update_message(1, items=[{"product_id": 1, "quantity": 1, "note": "a"}], by=7),
            ("order_data/by", "order_data/items/*/note"),
        ),
    ],
)
def test_unknown_fields_are_ignored_and_listed(
    queue: Queue, message: bytes, fields: tuple[str, ...]
) -> None:
    parsed = parse_message(queue, message)

    assert not isinstance(parsed, DaybookError)
    assert list_unknown_fields(parsed) == fields


def test_the_number_and_the_length_of_listed_fields_are_limited() -> None:
    parsed = parse_message(
        Queue.PRODUCT,
        encode_message(
            {"name": "pot", "price": 1} | {f"{n:03}{'x' * 1000}": n for n in range(100)}
        ),
    )

    assert not isinstance(parsed, DaybookError)
    fields = list_unknown_fields(parsed)
    assert len(fields) == 20
    assert {len(field) for field in fields} == {100}


def test_a_minimal_order_is_parsed() -> None:
    message = parse_message(Queue.ORDER, order_message(quantity=3))

    assert isinstance(message, OrderMessage)
    assert message.items[0].quantity == 3
    assert message.external_id is None
