"""When does a business day begin and end?"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from daybook_domain.errors import Invalid

FIRST_DATE = date(1970, 1, 1)
LAST_DATE = date(9998, 12, 31)
"""The dates that have a business day; beyond them clocks and calendars overflow somewhere."""


@dataclass(frozen=True)
class BusinessDay:
    """The half-open interval `[starts_at, ends_at)`, in UTC, of one local calendar date.

    Consecutive days meet without gap or overlap, whatever the clocks of the zone do. A date that
    the zone never had (Pacific/Apia, 30 December 2011) is an empty interval.
    """

    date: date
    starts_at: datetime
    ends_at: datetime

    def has_ended(self, *, now: datetime) -> bool:
        """Tell whether no order created from `now` on can belong to this day."""
        return now >= self.ends_at


def business_day(day: date, *, timezone: str) -> BusinessDay:
    """Return the business day of `day` in the IANA zone `timezone`.

    Raises `Invalid` outside `FIRST_DATE` to `LAST_DATE`.
    """
    _require_known(day)
    return BusinessDay(
        date=day,
        starts_at=first_instant(day, timezone=timezone),
        ends_at=first_instant(day + timedelta(days=1), timezone=timezone),
    )


@lru_cache(maxsize=1024)
def get_zone(name: str) -> ZoneInfo:
    """Return the zone of that name. `ZoneInfo` itself remembers only the last eight."""
    return ZoneInfo(name)


def local_date(instant: datetime, *, timezone: str) -> date:
    """Return the date that a clock on the wall of `timezone` shows at `instant`."""
    return instant.astimezone(get_zone(timezone)).date()


def shift_date(day: date, *, days: int, timezone: str) -> date:
    """Return the date `days` local dates after `day` (before it, where negative).

    Dates that the zone never had do not count: in Pacific/Apia the day before 31 December 2011
    is the 29th. Raises `Invalid` outside `FIRST_DATE` to `LAST_DATE`.
    """
    shifted = day + timedelta(days=days)
    step = timedelta(days=1 if days > 0 else -1)
    # A date that never was, on the way, moves the end by one, and so maybe over the next such.
    for lost in sorted(list_skipped_dates(timezone), reverse=days < 0):
        if (day < lost <= shifted) if days > 0 else (shifted <= lost < day):
            shifted += step
    _require_known(shifted)
    return shifted


def _require_known(day: date) -> None:
    if not FIRST_DATE <= day <= LAST_DATE:
        raise Invalid(f"{day} is outside {FIRST_DATE} to {LAST_DATE}.", field="date")


@lru_cache(maxsize=1024)
def list_skipped_dates(timezone: str) -> frozenset[date]:
    """Return the dates that the zone jumped over, as when it crossed the date line.

    Clocks are put forward by so much between two months that differ by most of a day; no zone has
    plans to do it again.
    """
    zone, lost = get_zone(timezone), set[date]()
    offsets = [
        (month, datetime.combine(month, time(12), tzinfo=zone).utcoffset() or timedelta(0))
        for month in (date(year, n, 1) for year in range(1970, 2038) for n in range(1, 13))
    ]
    for (month, before), (_, after) in pairwise(offsets):
        if after - before > timedelta(hours=20):
            # With some days on either side, for the jump may lie on the edge.
            days = (month + timedelta(days=n) for n in range(-3, 35))
            lost |= {day for day in days if _never_was(day, timezone)}
    return frozenset(lost)


def _never_was(day: date, timezone: str) -> bool:
    found = business_day(day, timezone=timezone)
    return found.starts_at == found.ends_at


def first_instant(day: date, *, timezone: str) -> datetime:
    """Return the first instant (UTC) at which the wall clock reads `day` 00:00 or later.

    Where midnight comes twice that is its first occurrence; where the clocks jump over it, the
    instant of the jump.
    """
    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 # a wall clock's reading
    return first_instant_of_wall_time(midnight, zone=get_zone(timezone))


def first_instant_of_wall_time(wall: datetime, *, zone: ZoneInfo) -> datetime:
    """Return the first instant (UTC) at which a clock in `zone` reads `wall` (naive) or later."""
    after = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if wall_time(after, zone=zone) == wall:
        return after
    # The reading was jumped over. PEP 495: in a gap, fold=0 counts with the offset from before
    # the jump and lands after it; fold=1 the other way round. The jump lies in between.
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) // 2).replace(microsecond=0)
        if wall_time(middle, zone=zone) >= wall:
            after = middle
        else:
            before = middle
    return after


def wall_time(instant: datetime, *, zone: ZoneInfo) -> datetime:
    """Return what a clock on a wall in `zone` reads at `instant`; naive."""
    return instant.astimezone(zone).replace(tzinfo=None)
