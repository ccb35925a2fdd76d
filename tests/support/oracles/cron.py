"""Due times of cron expressions, found minute by minute from predicates on the wall time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


@dataclass(frozen=True)
class CronRule:
    """A cron expression, and a predicate for the wall times that it matches."""

    cron: str
    matches: Callable[[datetime], bool]
    is_wildcard: bool = False
    """Whether it is due at each minute whose wall time matches; else once for each wall time."""


CRON_RULES = {
    rule.cron: rule
    for rule in (
        CronRule("* * * * *", lambda _: True, is_wildcard=True),
        CronRule("*/2 * * * *", lambda wall: wall.minute % 2 == 0, is_wildcard=True),
        CronRule("1-59/2 * * * *", lambda wall: wall.minute % 2 == 1, is_wildcard=True),
        CronRule("*/15 * * * *", lambda wall: wall.minute % 15 == 0, is_wildcard=True),
        CronRule("@hourly", lambda wall: wall.minute == 0, is_wildcard=True),
        CronRule(
            "0 */6 * * *",
            lambda wall: wall.minute == 0 and wall.hour % 6 == 0,
            is_wildcard=True,
        ),
        CronRule("0 0 * * *", lambda wall: wall.minute == wall.hour == 0),
        CronRule("30 2 * * *", lambda wall: (wall.hour, wall.minute) == (2, 30)),
        CronRule("15 1,2,3 * * *", lambda wall: wall.hour in {1, 2, 3} and wall.minute == 15),
        CronRule(
            "0 9 * * MON-FRI",
            lambda wall: (wall.hour, wall.minute) == (9, 0) and wall.weekday() < 5,
        ),
    )
}


def list_expected_due_times(
    rule: CronRule, *, timezone: str, after: datetime, until: datetime
) -> Iterator[datetime]:
    """Yield the due times of `rule` after `after`, up to and including `until`."""
    # Start a day earlier: a repeated wall time is recognised only if its first pass was seen.
    first = after.replace(second=0, microsecond=0) - DAY
    latest_wall = _wall_time(timezone, first)
    for at in _minutes(first + MINUTE, until):
        wall = _wall_time(timezone, at)
        if rule.is_wildcard:
            is_due = rule.matches(wall)
        else:
            # At a gap, all skipped wall times are due at the first minute after it; in a fold,
            # the repeated wall times are not due again.
            is_due = any(rule.matches(passed) for passed in _minutes(latest_wall + MINUTE, wall))
            latest_wall = max(latest_wall, wall)
        if is_due and at > after:
            yield at


def get_expected_report_date(at: datetime, *, timezone: str, offset_days: int) -> date:
    """Return the report date of a fire with the nominal time `at`."""
    return _wall_time(timezone, at).date() + timedelta(days=offset_days)


def _minutes(first: datetime, last: datetime) -> Iterable[datetime]:
    while first <= last:
        yield first
        first += MINUTE


@lru_cache(maxsize=1_000_000)
def _wall_time(timezone: str, at: datetime) -> datetime:
    """Return the naive local time."""
    return at.astimezone(ZoneInfo(timezone)).replace(tzinfo=None)
