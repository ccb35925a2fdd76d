"""Opaque cursors of lists that are ordered by time and id."""

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from daybook_domain.errors import Invalid
from daybook_domain.validation import MAX_ID

T = TypeVar("T", UUID, int)


def encode(created_at: datetime, item_id: UUID | int) -> str:
    """Return the cursor of the position behind an item."""
    text = f"{created_at.astimezone(UTC).isoformat()} {item_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str) -> tuple[datetime, UUID]:
    """Return the time and UUID that `encode` received. Raises `Invalid`."""
    return _decode(cursor, UUID)


def decode_row(cursor: str) -> tuple[datetime, int]:
    """Return the time and integer id that `encode` received. Raises `Invalid`."""
    return _decode(cursor, _parse_row_id)


def _parse_row_id(text: str) -> int:
    row_id = int(text)
    if not 1 <= row_id <= MAX_ID:
        raise ValueError("out of range")
    return row_id


def _decode(cursor: str, parse_id: Callable[[str], T]) -> tuple[datetime, T]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        instant, _, item_id = base64.b64decode(padded, b"-_", validate=True).decode().partition(" ")
        created_at = datetime.fromisoformat(instant)
        if created_at.tzinfo is None:
            raise ValueError("no UTC offset")
        # Overflows for the first and the last hours of the calendar.
        return created_at.astimezone(UTC), parse_id(item_id)
    except (ValueError, OverflowError, binascii.Error):
        raise Invalid(
            "is not a cursor of this list; expected the value of `next` or of the Link header.",
            field="before",
        ) from None
