"""Which values may orders and their items have?"""

from typing import Annotated

from pydantic import Field, StringConstraints

from daybook_domain.fields import LARGEST_INTEGER, Storable

MOST_ITEMS = 1000

ExternalId = Annotated[str, StringConstraints(min_length=1, max_length=200), Storable]
"""The sender's own key of an order, which makes a second delivery harmless; kept to the letter."""
Quantity = Annotated[int, Field(ge=1, le=LARGEST_INTEGER, strict=True)]
