"""When is a schedule due, for somebody who knows no cron and only reads a clock on the wall?"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


@dataclass(frozen=True)
class Rule:
    """A cron expression, and in other words which readings of the clock it means."""

    cron: str
    means: Callable[[datetime], bool]
    goes_with_the_clock: bool = False
    """Due whenever the clock reads so, and never when it does not; else once for each reading."""


RULES = {
    rule.cron: rule
    for rule in (
        Rule("* * * * *", lambda _: True, goes_with_the_clock=True),
        Rule("*/2 * * * *", lambda wall: wall.minute % 2 == 0, goes_with_the_clock=True),
        Rule("1-59/2 * * * *", lambda wall: wall.minute % 2 == 1, goes_with_the_clock=True),
        Rule("*/15 * * * *", lambda wall: wall.minute % 15 == 0, goes_with_the_clock=True),
        Rule("@hourly", lambda wall: wall.minute == 0, goes_with_the_clock=True),
        Rule(
            "0 */6 * * *",
            lambda wall: wall.minute == 0 and wall.hour % 6 == 0,
            goes_with_the_clock=True,
        ),
        Rule("0 0 * * *", lambda wall: wall.minute == wall.hour == 0),
        Rule("30 2 * * *", lambda wall: (wall.hour, wall.minute) == (2, 30)),
        Rule("15 1,2,3 * * *", lambda wall: wall.hour in {1, 2, 3} and wall.minute == 15),
        Rule(
            "0 9 * * MON-FRI",
            lambda wall: (wall.hour, wall.minute) == (9, 0) and wall.weekday() < 5,
        ),
    )
}


def due_times(rule: Rule, *, timezone: str, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield when `rule` is due, after `after` and not after `until`, minute by minute."""
    # What has been read before is known only to somebody who began to read a day earlier.
    first = after.replace(second=0, microsecond=0) - DAY
    furthest = _reads(timezone, first)
    for at in _minutes(first + MINUTE, until):
        wall = _reads(timezone, at)
        if rule.goes_with_the_clock:
            is_due = rule.means(wall)
        else:
            # A clock that is put forward comes to all that it jumps over in one moment; one that
            # is put back comes to nothing new.
            is_due = any(rule.means(passed) for passed in _minutes(furthest + MINUTE, wall))
            furthest = max(furthest, wall)
        if is_due and at > after:
            yield at


def reported(at: datetime, *, timezone: str, offset_days: int) -> date:
    """Return the date that a fire due `at` is about."""
    return _reads(timezone, at).date() + timedelta(days=offset_days)


def _minutes(first: datetime, last: datetime) -> Iterable[datetime]:
    while first <= last:
        yield first
        first += MINUTE


@lru_cache(maxsize=1_000_000)
def _reads(timezone: str, at: datetime) -> datetime:
    """Return the reading (naive) of a clock on the wall."""
    return at.astimezone(ZoneInfo(timezone)).replace(tzinfo=None)
