"""Business days: the UTC interval of a local calendar date, in every IANA zone."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from daybook_domain.errors import Invalid

FIRST_DATE = date(1970, 1, 1)
LAST_DATE = date(9998, 12, 31)
"""The range of dates that have a business day; outside of it, date arithmetic can overflow."""


@dataclass(frozen=True)
class BusinessDay:
    """The half-open interval `[starts_at, ends_at)`, in UTC, of one local date in `timezone`.

    Consecutive days neither overlap nor leave a gap, across every DST change. A date that the zone
    skipped (Pacific/Apia, 30 December 2011) is an empty interval.
    """

    date: date
    starts_at: datetime
    ends_at: datetime
    timezone: str

    def has_ended(self, *, now: datetime) -> bool:
        """Return whether the day has ended: an order created at `now` belongs to a later one."""
        return now >= self.ends_at


def business_day(day: date, *, timezone: str) -> BusinessDay:
    """Return the business day of `day` in the IANA zone `timezone`.

    Raises `Invalid` outside `FIRST_DATE` to `LAST_DATE`.
    """
    _require_in_range(day)
    return BusinessDay(
        date=day,
        starts_at=first_instant(day, timezone=timezone),
        ends_at=first_instant(day + timedelta(days=1), timezone=timezone),
        timezone=timezone,
    )


@lru_cache(maxsize=1024)
def get_zone(name: str) -> ZoneInfo:
    """Return the zone of that name, cached; `ZoneInfo` itself caches only the last eight.

    Raises `Invalid` for a zone that the installed tzdata does not have (any more).
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        # ValueError: not the form of a name. OSError: a directory of tzdata.
        raise Invalid(f"'{name[:100]}' is not a known time zone.", field="timezone") from error


def local_date(instant: datetime, *, timezone: str) -> date:
    """Return the local date in `timezone` at `instant`."""
    return instant.astimezone(get_zone(timezone)).date()


def shift_date(day: date, *, days: int, timezone: str) -> date:
    """Return the date `days` local dates after `day`, or before it if `days` is negative.

    Dates that the zone skipped do not count: in Pacific/Apia the day before 31 December 2011 is
    the 29th. Raises `Invalid` outside `FIRST_DATE` to `LAST_DATE`.
    """
    shifted = day + timedelta(days=days)
    step = timedelta(days=1 if days > 0 else -1)
    # A skipped date on the way moves the result by one more, which may cross the next one.
    for skipped in sorted(list_skipped_dates(timezone), reverse=days < 0):
        if (day < skipped <= shifted) if days > 0 else (shifted <= skipped < day):
            shifted += step
    _require_in_range(shifted)
    return shifted


def _require_in_range(day: date) -> None:
    if not FIRST_DATE <= day <= LAST_DATE:
        raise Invalid(f"{day} is out of range; expected {FIRST_DATE} to {LAST_DATE}.", field="date")


@lru_cache(maxsize=1024)
def list_skipped_dates(timezone: str) -> frozenset[date]:
    """Return the dates that the zone skipped, as when it crossed the date line.

    Only a month whose UTC offset grows by nearly a day is examined in detail. Years after 2037 are
    not: no zone has announced such a change.
    """
    zone, skipped = get_zone(timezone), set[date]()
    offsets = [
        (month, datetime.combine(month, time(12), tzinfo=zone).utcoffset() or timedelta(0))
        for month in (date(year, n, 1) for year in range(1970, 2038) for n in range(1, 13))
    ]
    for (month, before), (_, after) in pairwise(offsets):
        if after - before > timedelta(hours=20):
            # With a margin of some days, since the change may be at the edge of the month.
            days = (month + timedelta(days=n) for n in range(-3, 35))
            skipped |= {day for day in days if _is_skipped(day, timezone=timezone)}
    return frozenset(skipped)


def _is_skipped(day: date, *, timezone: str) -> bool:
    found = business_day(day, timezone=timezone)
    return found.starts_at == found.ends_at


def first_instant(day: date, *, timezone: str) -> datetime:
    """Return the first instant (UTC) whose local time is `day` 00:00 or later.

    If midnight occurs twice, its first occurrence; if the clocks skip it, the instant of the skip.
    """
    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 # a wall time
    return first_instant_of_wall_time(midnight, zone=get_zone(timezone))


def first_instant_of_wall_time(wall: datetime, *, zone: ZoneInfo) -> datetime:
    """Return the first instant (UTC) whose wall time in `zone` is `wall` (naive) or later."""
    after = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if wall_time(after, zone=zone) == wall:
        return after
    # `wall` is in a gap. PEP 495: fold=0 applies the offset from before the transition and results
    # in an instant after it; fold=1 the reverse. The transition is between the two.
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) // 2).replace(microsecond=0)
        if wall_time(middle, zone=zone) >= wall:
            after = middle
        else:
            before = middle
    return after


def wall_time(instant: datetime, *, zone: ZoneInfo) -> datetime:
    """Return the local time in `zone` at `instant`; naive."""
    return instant.astimezone(zone).replace(tzinfo=None)
