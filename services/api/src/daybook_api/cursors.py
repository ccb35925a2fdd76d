"""How does a list of runs go on where it ended?"""

import base64
import binascii
from datetime import UTC, datetime
from uuid import UUID

from daybook_domain.errors import Invalid


def encode(created_at: datetime, run_id: UUID) -> str:
    """Return the opaque position behind that run."""
    text = f"{created_at.astimezone(UTC).isoformat()} {run_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str) -> tuple[datetime, UUID]:
    """Return what `encode` was given, or raise `Invalid`."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        instant, _, run_id = base64.b64decode(padded, b"-_", validate=True).decode().partition(" ")
        position = datetime.fromisoformat(instant), UUID(run_id)
    except (ValueError, binascii.Error):
        position = None
    if position is None or position[0].tzinfo is None:
        raise Invalid(
            "is not a position in this list; expected what `next` or the Link header gave.",
            field="before",
        )
    return position
