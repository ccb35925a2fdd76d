"""Explanations of time ranges without a fire in the ledger."""

from datetime import datetime

from daybook_domain.errors import Invalid
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.models import Schedule


def explain_missing_fires(
    schedule: Schedule, *, first: datetime | None, before: datetime | None, now: datetime
) -> str:
    """Return why the ledger has no fire in `[first, before)` (None: unbounded).

    `now` is when the ledger was read, without a filter on outcomes.
    """
    if first is not None and first > now:
        return "The range is in the future; GET /schedules/preview lists upcoming fires."
    if schedule.defined_at is not None and before is not None and before <= schedule.defined_at:
        return (
            f"The schedule was last defined at {schedule.defined_at:%FT%TZ}; earlier fires are in"
            " the ledger as far as it reaches back."
        )
    since = max(filter(None, (first, schedule.defined_at)), default=schedule.created_at)
    try:
        due = due_times.next_fire(schedule.cron, timezone=schedule.timezone, after=since)
    except Invalid as error:
        return f"The schedule cannot fire: {error.detail}"
    if due is None or (before is not None and due >= before) or due > now:
        then = f"; the next is at {schedule.next_fire_at:%FT%TZ}" if schedule.next_fire_at else ""
        return f"No fire of '{schedule.cron}' in {schedule.timezone} was due in the range{then}."
    if schedule.next_fire_at is not None and schedule.next_fire_at <= now:
        reason = f": {schedule.error}" if schedule.error else "; is one running?"
        return (
            f"Fires are due since {schedule.next_fire_at:%FT%TZ}, and no scheduler has recorded"
            f" them{reason}"
        )
    return "The ledger no longer has the fires of the range (DAYBOOK_LEDGER_DAYS)."
