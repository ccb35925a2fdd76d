"""The JSON form of amounts of money."""

from decimal import Decimal
from typing import Annotated

from pydantic import PlainSerializer, WithJsonSchema

Money = Annotated[
    Decimal,
    # A JSON number, and exact: an amount has at most 12 digits, and the shortest text that
    # identifies a float has room for 15.
    PlainSerializer(float, return_type=float, when_used="json"),
    WithJsonSchema({"type": "number", "examples": [19.9]}),
]
