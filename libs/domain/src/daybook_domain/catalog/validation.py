"""Which values may users, addresses and products have?"""

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, EmailStr, Field, StringConstraints

from daybook_domain.validation import MAX_INTEGER, Storable

CENT = Decimal("0.01")
MAX_AMOUNT = Decimal("9999999999.99")
"""What NUMERIC(12,2) holds."""


def _text(*, at_most: int, at_least: int = 1) -> StringConstraints:
    # These are for people: white space around them does not count.
    return StringConstraints(min_length=at_least, max_length=at_most, strip_whitespace=True)


Username = Annotated[str, _text(at_most=100), Storable]
Email = Annotated[EmailStr, Field(max_length=320)]
UserDescription = Annotated[str, _text(at_most=500, at_least=0), Storable]

Street = Annotated[str, _text(at_most=200), Storable]
City = Annotated[str, _text(at_most=100), Storable]
State = Annotated[str, _text(at_most=100), Storable]
ZipCode = Annotated[str, _text(at_most=20), Storable]
Country = Annotated[str, _text(at_most=100), Storable]

ProductName = Annotated[str, _text(at_most=200), Storable]
ProductDescription = Annotated[str, _text(at_most=1000, at_least=0), Storable]
Price = Annotated[
    Decimal,
    Field(gt=0, le=MAX_AMOUNT, decimal_places=2),
    # `1e3` and `5` are prices as well; they are kept, compared and shown as 1000.00 and 5.00.
    AfterValidator(lambda value: value.quantize(CENT)),
]
Stock = Annotated[int, Field(ge=0, le=MAX_INTEGER, strict=True)]
