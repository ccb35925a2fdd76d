"""Calendar dates in requests."""

import re
from datetime import date
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from daybook_domain.reports.business_day import FIRST_DATE, LAST_DATE

EXAMPLE = "2026-11-23"
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def parse_day(value: object) -> date:
    """Return a calendar date. Raises `ValueError`, with what was expected."""
    # `date.fromisoformat` alone would accept 20261123 and 2026-W48-1, too.
    expected = f"expected YYYY-MM-DD, such as {EXAMPLE}"
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a calendar date; {expected}"[:200])
    if not value.strip():
        raise ValueError(f"is empty; {expected}, or omit it")
    # Pydantic cannot report an error whose text has half of a surrogate pair.
    shown = value.encode(errors="backslashreplace").decode()
    shown = shown if len(shown) <= 40 else f"{shown[:40]}…"
    try:
        day = date.fromisoformat(value) if _ISO_DATE.fullmatch(value) else None
    except ValueError:
        day = None
    if day is None:
        raise ValueError(f"{shown} is not a calendar date; {expected}")
    if not FIRST_DATE <= day <= LAST_DATE:
        raise ValueError(f"{shown} is out of range; expected {FIRST_DATE} to {LAST_DATE}")
    return day


Day = Annotated[
    date,
    BeforeValidator(parse_day),
    WithJsonSchema({"type": "string", "format": "date", "examples": [EXAMPLE]}),
]
