"""When does a business day begin and end?"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo


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
    """Return the business day of `day` in the IANA zone `timezone`."""
    return BusinessDay(
        date=day,
        starts_at=first_instant(day, timezone=timezone),
        ends_at=first_instant(day + timedelta(days=1), timezone=timezone),
    )


def local_date(instant: datetime, *, timezone: str) -> date:
    """Return the date that a clock on the wall of `timezone` shows at `instant`."""
    return instant.astimezone(ZoneInfo(timezone)).date()


def first_instant(day: date, *, timezone: str) -> datetime:
    """Return the first instant (UTC) at which the wall clock reads `day` 00:00 or later.

    Where midnight comes twice that is its first occurrence; where the clocks jump over it, the
    instant of the jump.
    """
    zone = ZoneInfo(timezone)
    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 # a wall clock's reading
    after = midnight.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _reading(after, zone) == midnight:
        return after
    # Midnight was jumped over. PEP 495: in a gap, fold=0 counts with the offset from before the
    # jump and lands after it; fold=1 the other way round. The jump lies in between.
    before = midnight.replace(tzinfo=zone, fold=1).astimezone(UTC)
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        if middle <= before:
            break
        if _reading(middle, zone) >= midnight:
            after = middle
        else:
            before = middle
    return after


def _reading(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None)
