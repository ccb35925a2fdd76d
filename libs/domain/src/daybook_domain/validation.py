"""Field types that request bodies and messages share.

Limits that belong to one feature are in its own `validation` module.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

MAX_ID = 2**63 - 1
MAX_INTEGER = 2**31 - 1

Id = Annotated[int, Field(ge=1, le=MAX_ID, strict=True)]
"""A primary key; strict, because `true` and `"7"` are not numbers in JSON."""


def _reject_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("contains a NUL character (U+0000), which cannot be stored")
    return value


Storable = AfterValidator(_reject_nul)
"""Rejects NUL, the one character that Postgres cannot store."""
