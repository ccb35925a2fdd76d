"""How does an amount of money go out?"""

from decimal import Decimal
from typing import Annotated

from pydantic import PlainSerializer, WithJsonSchema

Money = Annotated[
    Decimal,
    # A JSON number. Exact: it has at most 12 digits, and a float is written with the fewest digits
    # that tell it from its neighbours, which are 15 or more apart.
    PlainSerializer(float, return_type=float, when_used="json"),
    WithJsonSchema({"type": "number", "examples": [19.9]}),
]
