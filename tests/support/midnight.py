"""Midnight in UTC, at which the current day of a test would change under it."""

import time
from datetime import UTC, datetime, timedelta

MARGIN = timedelta(seconds=30)
"""Longer than a test that depends on the current day takes."""


def wait_if_midnight_is_near(*, margin: timedelta = MARGIN) -> None:
    """Return with at least `margin` until the next midnight; wait for its passing if need be."""
    time.sleep(compute_wait(datetime.now(UTC), margin=margin).total_seconds())


def compute_wait(now: datetime, *, margin: timedelta) -> timedelta:
    """Return the time until shortly after midnight if that is nearer than `margin`, else zero."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    remaining = today + timedelta(days=1) - now
    return remaining + timedelta(seconds=1) if remaining < margin else timedelta(0)
