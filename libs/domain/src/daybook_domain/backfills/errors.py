"""Errors about backfills."""

from daybook_domain.errors import Conflict, Invalid, NotFound


class BackfillNotFound(NotFound):
    """The backfill does not exist."""

    code = "backfill_not_found"


class BackfillEnded(Conflict):
    """The backfill has ended, so it cannot be paused, resumed or cancelled."""

    code = "backfill_ended"


class InvalidRange(Invalid):
    """The range of dates is reversed, too long, or reaches into the future."""

    code = "invalid_range"
