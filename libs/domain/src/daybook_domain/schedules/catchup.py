"""Catch-up policy: which fires that are recorded late still become runs. Pure."""

from dataclasses import replace
from datetime import datetime, timedelta

from daybook_domain.runs.fire_ledger import Fire
from daybook_domain.runs.models import SkipCause
from daybook_domain.schedules.models import Catchup, Schedule

MISFIRE_GRACE = timedelta(minutes=1)
"""A fire recorded within this time of its due time is on time, whatever the catch-up policy."""


def apply_catchup_policy(schedule: Schedule, fire: Fire, *, is_latest: bool, now: datetime) -> Fire:
    """Return `fire`, with a cause and a reason if it is late and the policy skips it.

    `is_latest`: no later fire of the schedule is due at `now`.
    """
    late, window = now - fire.scheduled_for, schedule.catchup_window
    if late <= MISFIRE_GRACE:
        return fire
    if late > window:
        reason = f"missed: {late} late, outside the window of {window}"
        return replace(fire, cause=SkipCause.OUTSIDE_WINDOW, reason=reason)
    if schedule.catchup == Catchup.NONE:
        reason = f"missed: {late} late, and catchup is none"
        return replace(fire, cause=SkipCause.CATCHUP, reason=reason)
    if schedule.catchup == Catchup.LATEST and not is_latest:
        reason = "missed: catchup is latest, and a later fire was due"
        return replace(fire, cause=SkipCause.CATCHUP, reason=reason)
    return fire
