"""Field types of catalogue and orders: accepted and rejected values."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from daybook_domain.catalog.validation import Email, Price, ProductName, Stock, UserDescription
from daybook_domain.orders.order_validation import ExternalId, Quantity
from daybook_domain.validation import Id

ACCEPTED: list[tuple[Any, Any, Any]] = [
    (Price, 19.9, Decimal("19.90")),
    (Price, "19.90", Decimal("19.90")),
    (Price, 5, Decimal("5.00")),
    (Price, "1e3", Decimal("1000.00")),
    (Price, 0.01, Decimal("0.01")),
    (Price, 9999999999.99, Decimal("9999999999.99")),
    (Stock, 0, 0),
    (Stock, 2**31 - 1, 2**31 - 1),
    (Quantity, 1, 1),
    (Id, 2**63 - 1, 2**63 - 1),
    (ProductName, "  Öl ", "Öl"),
    (ProductName, "x" * 200, "x" * 200),
    (UserDescription, "", ""),
    (ExternalId, " shop 17 ", " shop 17 "),
    (Email, "ada@Example.com", "ada@example.com"),
]
REJECTED: list[tuple[Any, Any, str]] = [
    (Price, 0, "greater than 0"),
    (Price, -1, "greater than 0"),
    (Price, 19.999, "2 decimal places"),
    (Price, "19.999", "2 decimal places"),
    (Price, 10**10, "9999999999.99"),
    (Price, float("nan"), "finite"),
    (Price, "Infinity", "finite"),
    (Price, True, "Decimal"),
    (Price, "cheap", "decimal"),
    (Stock, -1, "greater than or equal to 0"),
    (Stock, 2**31, "2147483647"),
    (Stock, True, "integer"),
    (Stock, "3", "integer"),
    (Stock, 1.0, "integer"),
    (Quantity, 0, "greater than or equal to 1"),
    (Id, 0, "greater than or equal to 1"),
    (Id, 2**63, "9223372036854775807"),
    (ProductName, "  ", "at least 1 character"),
    (ProductName, "x" * 201, "at most 200 characters"),
    (ProductName, "a\0b", "NUL"),
    (ProductName, "\ud800", "unicode"),
    (ProductName, 7, "string"),
    (ExternalId, "a\0b", "NUL"),
    (ExternalId, "", "at least 1 character"),
    (Email, "ada", "@-sign"),
    (Email, "ada@" + "x" * 400 + ".com", "too long"),
]


@pytest.mark.parametrize(("field", "value", "expected"), ACCEPTED)
def test_a_valid_value_is_accepted(field: Any, value: Any, expected: Any) -> None:
    found = TypeAdapter(field).validate_python(value)
    assert found == expected
    assert str(found) == str(expected)


@pytest.mark.parametrize(("field", "value", "hint"), REJECTED)
def test_an_invalid_value_is_rejected_with_a_hint(field: Any, value: Any, hint: str) -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(field).validate_python(value)
    assert hint in raised.value.errors()[0]["msg"]
