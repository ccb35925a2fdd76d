"""Planning of the due fires of one schedule: report date, jitter and pause."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from hashlib import blake2b

from daybook_domain.errors import Invalid
from daybook_domain.reports.business_day import local_date, shift_date
from daybook_domain.runs.fire_ledger import Fire
from daybook_domain.runs.models import SkipCause
from daybook_domain.schedules.catchup import apply_catchup_policy
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.models import Schedule

MAX_FIRES_PER_SCHEDULE = 100
"""Maximum fires of one schedule in one plan; the next transaction plans the rest."""


@dataclass(frozen=True)
class FirePlan:
    """The due fires of one schedule, and when it fires next."""

    schedule: Schedule
    fires: Sequence[Fire]
    last_at: datetime
    next_at: datetime | None


def plan_fires(schedule: Schedule, *, now: datetime) -> FirePlan:
    """Return the plan of a schedule that is due; fires that its policies skip have a cause."""
    assert schedule.next_fire_at is not None
    fires, last_at = list[Fire](), schedule.next_fire_at
    next_at: datetime | None = last_at
    for at, following in _due_times(schedule, now):
        fires.append(plan_fire(schedule, at, following=following, now=now))
        last_at, next_at = at, following
    return FirePlan(schedule, fires, last_at, next_at)


def _due_times(schedule: Schedule, now: datetime) -> Iterator[tuple[datetime, datetime | None]]:
    """Yield each due time until `now` with the due time after it, oldest first."""
    at = schedule.next_fire_at
    for _ in range(MAX_FIRES_PER_SCHEDULE):
        if at is None or at > now:
            return
        following = due_times.next_fire(schedule.cron, timezone=schedule.timezone, after=at)
        yield at, following
        at = following


def plan_fire(
    schedule: Schedule, at: datetime, *, following: datetime | None, now: datetime
) -> Fire:
    """Return the fire due `at`, with a cause if the policies of the schedule skip it.

    `following` is the due time after it.
    """
    assert schedule.id is not None
    fire = Fire(
        schedule_id=schedule.id,
        scheduled_for=at,
        day=get_report_date(schedule, at),
        available_at=at + jitter(schedule, at, following),
    )
    # A fire that was due before the pause, and could not be recorded then, is not part of it.
    if not schedule.enabled and (schedule.paused_at is None or at >= schedule.paused_at):
        reason = f"paused: {schedule.note}" if schedule.note else "paused"
        return replace(fire, cause=SkipCause.PAUSED, reason=reason)
    return apply_catchup_policy(
        schedule, fire, is_latest=following is None or following > now, now=now
    )


def get_report_date(schedule: Schedule, at: datetime) -> date:
    """Return the date that the fire due `at` reports, counted from its nominal time."""
    return shift_date(
        local_date(at, timezone=schedule.timezone),
        days=schedule.report_offset_days,
        timezone=schedule.timezone,
    )


def find_report_date(schedule: Schedule, at: datetime) -> date | None:
    """Return the date that the fire due `at` reports, or None if the schedule cannot fire then."""
    try:
        return get_report_date(schedule, at)
    except (Invalid, OverflowError, ValueError):
        return None


def jitter(schedule: Schedule, at: datetime, following: datetime | None) -> timedelta:
    """Return the delay of the fire due `at`: deterministic, and shorter than until the next fire.

    `following` is the due time of the next fire.
    """
    span = schedule.jitter if following is None else min(schedule.jitter, following - at)
    if not span:
        return span
    seed = f"{schedule.id} {at.isoformat()}".encode()
    fraction = int.from_bytes(blake2b(seed, digest_size=4).digest()) / 2**32
    return timedelta(seconds=int(span.total_seconds() * fraction))
