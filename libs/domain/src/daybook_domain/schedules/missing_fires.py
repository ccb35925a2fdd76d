"""Why is there no fire in the ledger for a stretch of time? Pure."""

from datetime import datetime

from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.models import Schedule


def explain_missing_fires(
    schedule: Schedule, *, first: datetime | None, before: datetime | None, now: datetime
) -> str:
    """Return what keeps `[first, before)` (all time where None) without a fire in the ledger.

    Nothing is filtered, and `now` is when the ledger was read.
    """
    if first is not None and first > now:
        return "It is yet to come; GET /schedules/preview tells what will be due."
    if schedule.defined_at is not None and before is not None and before <= schedule.defined_at:
        return (
            f"The schedule has been as it is only since {schedule.defined_at:%FT%TZ}; what was due"
            " before is in the ledger as far as it reaches back."
        )
    since = max(filter(None, (first, schedule.defined_at)), default=schedule.created_at)
    due = due_times.next_fire(schedule.cron, timezone=schedule.timezone, after=since)
    if due is None or (before is not None and due >= before) or due > now:
        then = f"; the next is at {schedule.next_fire_at:%FT%TZ}" if schedule.next_fire_at else ""
        return f"No fire of '{schedule.cron}' in {schedule.timezone} was due then{then}."
    if schedule.next_fire_at is not None and schedule.next_fire_at <= now:
        reason = f": {schedule.error}" if schedule.error else "; is one running?"
        return (
            f"Fires are due since {schedule.next_fire_at:%FT%TZ}, and no scheduler has recorded"
            f" them{reason}"
        )
    return "What was due then is older than the ledger reaches back (DAYBOOK_LEDGER_DAYS)."
