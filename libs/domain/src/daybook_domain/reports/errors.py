"""Errors of reports and their builds."""

from daybook_domain.errors import Conflict, NotFound


class DayNotFound(NotFound):
    """The date has no report."""

    code = "day_not_found"


class LeaseLost(Conflict):
    """The run was reaped or cancelled during its build; nothing was committed."""

    code = "lease_lost"


class TimezoneMismatch(Conflict):
    """The caller uses another time zone than the one of business days in the database."""

    code = "timezone_mismatch"
