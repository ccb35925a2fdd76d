"""Which values may users, addresses and products have?"""

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, EmailStr, Field, StringConstraints

from daybook_domain.fields import LARGEST_INTEGER, Storable

CENT = Decimal("0.01")
LARGEST_AMOUNT = Decimal("9999999999.99")
"""What NUMERIC(12,2) holds."""

# White space around a text for people does not count.
Username = Annotated[
    str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), Storable
]
Email = Annotated[EmailStr, Field(max_length=320)]
UserDescription = Annotated[str, StringConstraints(max_length=500, strip_whitespace=True), Storable]

Street = Annotated[
    str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), Storable
]
City = Annotated[
    str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), Storable
]
State = Annotated[
    str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), Storable
]
ZipCode = Annotated[
    str, StringConstraints(min_length=1, max_length=20, strip_whitespace=True), Storable
]
Country = Annotated[
    str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), Storable
]

ProductName = Annotated[
    str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), Storable
]
ProductDescription = Annotated[
    str, StringConstraints(max_length=1000, strip_whitespace=True), Storable
]
Price = Annotated[
    Decimal,
    Field(gt=0, le=LARGEST_AMOUNT, max_digits=12, decimal_places=2),
    # `1e3` and `5` are prices as well; they are kept, compared and shown as 1000.00 and 5.00.
    AfterValidator(lambda value: value.quantize(CENT)),
]
Stock = Annotated[int, Field(ge=0, le=LARGEST_INTEGER, strict=True)]
