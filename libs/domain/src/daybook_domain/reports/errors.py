"""What can be refused about reports?"""

from daybook_domain.errors import Conflict, Invalid, NotFound


class RunNotFound(NotFound):
    """There is no such run."""

    code = "run_not_found"


class DayNotFound(NotFound):
    """The date has no report."""

    code = "day_not_found"


class FutureDay(Invalid):
    """The day has not begun, so there is nothing to report."""

    code = "future_day"


class LeaseLost(Conflict):
    """The run was given to somebody else while this worker was at it; nothing was committed."""

    code = "lease_lost"


class RunHeld(Conflict):
    """What is queued is in other hands at this moment; they may leave it as it is."""

    code = "run_held"


class RunEnded(Conflict):
    """The run has ended, so there is nothing to cancel."""

    code = "run_ended"


class RunNotEnded(Conflict):
    """The run cannot be retried: it is going, has succeeded, or another does its work."""

    code = "run_not_ended"
