"""Which kinds of values do bodies and messages share, whoever sends them?

Limits that belong to one feature live in its own `fields.py`; here is what these are made of.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

MAX_ID = 2**63 - 1
MAX_INTEGER = 2**31 - 1

Id = Annotated[int, Field(ge=1, le=MAX_ID, strict=True)]
"""The key of something; strict, for `true` and `"7"` are no numbers in JSON."""


def _storable(value: str) -> str:
    if "\0" in value:
        raise ValueError("contains a NUL character (U+0000), which cannot be stored")
    return value


Storable = AfterValidator(_storable)
"""Postgres can store any character but NUL."""


def unset_field() -> Any:
    """Return the field of a partial body that may be left out, but not be null.

    What was left out is told by `model_dump(exclude_unset=True)`.
    """
    return Field(default_factory=lambda: None)
