"""Errors of report runs."""

from daybook_domain.errors import Conflict, Invalid, NotFound


class RunNotFound(NotFound):
    """The run does not exist."""

    code = "run_not_found"


class FutureDay(Invalid):
    """The business day has not started, so it has no orders to report."""

    code = "future_day"


class RunsLocked(Conflict):
    """Every claimable run is locked by another transaction; retry in a new one."""

    code = "run_held"


class RunEnded(Conflict):
    """The run has ended and cannot be cancelled."""

    code = "run_ended"


class RunNotEnded(Conflict):
    """The run cannot be retried: it is in progress, has succeeded, or joined another run."""

    code = "run_not_ended"
