"""Which time zones need a look of their own?"""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones


def some_zones(count: int) -> list[str]:
    """Return so many zones from all over the alphabet, the same each time."""
    zones = sorted(available_timezones() - {"localtime", "Factory"})
    return zones[:: len(zones) // count][:count]


@lru_cache
def distinct_zones(first: date, last: date) -> list[str]:
    """Return one name for each way in which clocks are set between the dates.

    Most of the 600 names are aliases of each other, or have become so since.
    """
    days = [first + timedelta(days=k) for k in range((last - first).days + 1)]
    noons = [datetime.combine(day, time(12), tzinfo=UTC) for day in days]
    by_clock: dict[tuple[timedelta | None, ...], str] = {}
    for name in sorted(available_timezones() - {"localtime"}):
        zone = ZoneInfo(name)
        by_clock.setdefault(tuple(noon.astimezone(zone).utcoffset() for noon in noons), name)
    return list(by_clock.values())
