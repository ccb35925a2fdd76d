"""What can be refused about backfills?"""

from daybook_domain.errors import Conflict, Invalid, NotFound


class BackfillNotFound(NotFound):
    """There is no such backfill."""

    code = "backfill_not_found"


class BackfillEnded(Conflict):
    """The backfill has ended, so there is nothing to pause, resume or cancel."""

    code = "backfill_ended"


class InvalidRange(Invalid):
    """The range of dates is turned round, too long, or reaches into the future."""

    code = "invalid_range"
