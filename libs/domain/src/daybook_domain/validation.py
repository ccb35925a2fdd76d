"""Field types that request bodies and messages share.

Limits that belong to one feature are in its own `validation` module.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

MAX_ID = 2**63 - 1
MAX_INTEGER = 2**31 - 1

Id = Annotated[int, Field(ge=1, le=MAX_ID, strict=True)]
"""A primary key; strict, because `true` and `"7"` are not numbers in JSON."""


def _reject_unstorable(value: str) -> str:
    if "\0" in value:
        raise ValueError("contains a NUL character (U+0000), which cannot be stored")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        raise ValueError(
            f"contains half of a surrogate pair (U+{code:04X}), which cannot be stored"
        ) from None
    return value


Storable = AfterValidator(_reject_unstorable)
"""Rejects what Postgres cannot store: NUL, and the lone surrogates that JSON can express."""


def unset_field(*, alias: str | None = None, description: str | None = None) -> Any:
    """Return a field of a partial body that may be absent but not null.

    `model_dump(exclude_unset=True)` leaves absent fields out.
    """
    return Field(default_factory=lambda: None, alias=alias, description=description)
