"""AsyncAPI document of the intake queues, and the detection of breaking changes."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daybook_domain.intake.asyncapi import document
from tests.support.oracles.asyncapi_compatibility import list_breaking_changes

DOCS = Path(__file__).parents[4] / "docs"
Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> dict[str, Any]:
    new = copy.deepcopy(document())
    change(new)
    return new


def schemas(new: dict[str, Any]) -> Any:
    return new["components"]["schemas"]


def fields(new: dict[str, Any], model: str) -> Any:
    return schemas(new)[model]["properties"]


BREAKING: dict[str, tuple[Change, str]] = {
    "a queue is removed": (lambda d: d["channels"].pop("order"), "queue order was removed"),
    "a queue gets another address": (
        lambda d: d["channels"]["order"].update(address="orders"),
        "queue order: address changed",
    ),
    "a field is removed": (
        lambda d: fields(d, "OrderMessage").pop("external_id"),
        "order/external_id: was removed",
    ),
    "a field is renamed": (
        lambda d: fields(d, "ProductMessage").update(title=fields(d, "ProductMessage").pop("name")),
        "product/name: was removed",
    ),
    "a field becomes required": (
        lambda d: schemas(d)["OrderMessage"]["required"].append("external_id"),
        "order/external_id: became required",
    ),
    "a new field is required": (
        lambda d: (
            fields(d, "OrderMessage").update(currency={"type": "string"}),
            schemas(d)["OrderMessage"]["required"].append("currency"),
        ),
        "order/currency: became required",
    ),
    "a type changes": (
        lambda d: fields(d, "OrderMessage")["user_id"].update(type="string"),
        "order/user_id: string instead of integer",
    ),
    "null is rejected": (
        lambda d: fields(d, "OrderMessage").update(external_id={"type": "string"}),
        "order/external_id: ",
    ),
    "one of two types is rejected": (
        lambda d: fields(d, "ProductMessage")["price"]["anyOf"].pop(),
        "product/price: number instead of string",
    ),
    "the maximum length of a text decreases": (
        lambda d: fields(d, "ProductMessage")["name"].update(maxLength=100),
        "product/name: maxLength 200 became 100",
    ),
    "the minimum of a number increases": (
        lambda d: fields(d, "OrderItemData")["quantity"].update(minimum=2),
        "order/items/*/quantity: minimum 1 became 2",
    ),
    "a limit is added": (
        lambda d: fields(d, "ProductMessage")["name"].update(pattern="^[a-z]*$"),
        "product/name: pattern None became",
    ),
    "the maximum length of a list decreases": (
        lambda d: fields(d, "OrderMessage")["items"].update(maxItems=10),
        "order/items: maxItems 1000 became 10",
    ),
    "a status is rejected": (
        lambda d: schemas(d)["OrderStatus"]["enum"].remove("paid"),
        "order_update/order_data/status: enum",
    ),
}
COMPATIBLE: dict[str, Change] = {
    "nothing": lambda d: d,
    "a new queue": lambda d: (
        d["channels"].update(user={"address": "user"}),
        d["components"]["messages"].update(user={"payload": {}}),
    ),
    "a new optional field": lambda d: fields(d, "OrderMessage").update(note={"type": "string"}),
    "a field becomes optional": lambda d: schemas(d)["ProductMessage"]["required"].remove("price"),
    "the maximum length of a text increases": lambda d: fields(d, "ProductMessage")["name"].update(
        maxLength=300
    ),
    "a limit is removed": lambda d: fields(d, "ProductMessage")["name"].pop("maxLength"),
    "another type is accepted": lambda d: fields(d, "OrderMessage").update(
        user_id={"anyOf": [fields(d, "OrderMessage")["user_id"], {"type": "string"}]}
    ),
    "a new status": lambda d: schemas(d)["OrderStatus"]["enum"].append("lost"),
    "unknown fields are no longer described": lambda d: schemas(d)["OrderMessage"].pop(
        "additionalProperties"
    ),
    "only the title and version change": lambda d: d["info"].update(title="x", version="1.0.1"),
    "a model is renamed": lambda d: (
        schemas(d).update(Order=schemas(d).pop("OrderMessage")),
        d["components"]["messages"]["order"].update(payload={"$ref": "#/components/schemas/Order"}),
    ),
}


@pytest.mark.parametrize(("change", "expected"), BREAKING.values(), ids=BREAKING)
def test_a_change_that_rejects_current_messages_is_breaking(change: Change, expected: str) -> None:
    found = list_breaking_changes(document(), changed(change))

    assert any(each.startswith(expected) for each in found), found


@pytest.mark.parametrize("change", COMPATIBLE.values(), ids=COMPATIBLE)
def test_a_change_that_accepts_all_current_messages_is_compatible(change: Change) -> None:
    assert list_breaking_changes(document(), changed(change)) == []


def test_rejecting_unknown_fields_is_breaking() -> None:
    new = changed(lambda d: schemas(d)["OrderMessage"].update(additionalProperties=False))

    assert list_breaking_changes(document(), new) == ["order: unknown fields are rejected now"]


def test_the_committed_document_matches_the_models() -> None:
    committed = json.loads((DOCS / "asyncapi.json").read_text())

    assert committed == document(), "run `make asyncapi`"


def test_the_document_is_compatible_with_the_released_one() -> None:
    released = json.loads((DOCS / "asyncapi.released.json").read_text())

    assert list_breaking_changes(released, document()) == []
