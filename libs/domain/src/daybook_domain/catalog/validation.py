"""Field types of users, addresses and products."""

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, EmailStr, Field, StringConstraints

from daybook_domain.validation import MAX_INTEGER, Storable

CENT = Decimal("0.01")
MAX_AMOUNT = Decimal("9999999999.99")
"""The largest value of NUMERIC(12,2)."""


def _text(*, max_length: int, min_length: int = 1) -> StringConstraints:
    # Written by people: leading and trailing whitespace is not significant.
    return StringConstraints(min_length=min_length, max_length=max_length, strip_whitespace=True)


Username = Annotated[str, _text(max_length=100), Storable]
Email = Annotated[EmailStr, Field(max_length=320)]
UserDescription = Annotated[str, _text(max_length=500, min_length=0), Storable]

Street = Annotated[str, _text(max_length=200), Storable]
City = Annotated[str, _text(max_length=100), Storable]
State = Annotated[str, _text(max_length=100, min_length=0), Storable]
ZipCode = Annotated[str, _text(max_length=20), Storable]
Country = Annotated[str, _text(max_length=100), Storable]

ProductName = Annotated[str, _text(max_length=200), Storable]
ProductDescription = Annotated[str, _text(max_length=1000, min_length=0), Storable]
Price = Annotated[
    Decimal,
    Field(gt=0, le=MAX_AMOUNT, decimal_places=2),
    # `1e3` and `5` are valid; they are stored, compared and returned as 1000.00 and 5.00.
    AfterValidator(lambda value: value.quantize(CENT)),
]
Stock = Annotated[int, Field(ge=0, le=MAX_INTEGER, strict=True)]
