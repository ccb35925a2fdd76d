"""Opaque cursors of lists that are ordered by time and id."""

import base64
import binascii
from datetime import UTC, datetime
from uuid import UUID

from daybook_domain.errors import Invalid


def encode(created_at: datetime, item_id: UUID) -> str:
    """Return the cursor of the position behind an item."""
    text = f"{created_at.astimezone(UTC).isoformat()} {item_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str) -> tuple[datetime, UUID]:
    """Return the time and id that `encode` received. Raises `Invalid`."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        instant, _, item_id = base64.b64decode(padded, b"-_", validate=True).decode().partition(" ")
        created_at = datetime.fromisoformat(instant)
        if created_at.tzinfo is None:
            raise ValueError("no UTC offset")
        # Overflows for the first and the last hours of the calendar.
        return created_at.astimezone(UTC), UUID(item_id)
    except (ValueError, OverflowError, binascii.Error):
        raise Invalid(
            "is not a cursor of this list; expected the value of `next` or of the Link header.",
            field="before",
        ) from None
