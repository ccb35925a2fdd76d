"""Due times of cron expressions in IANA time zones, through clock changes.

Jobs are of two kinds, as in Debian's cron. A fixed-time job (`30 2 * * *`) whose time is skipped
when clocks go forward fires at the first valid instant after the gap; when clocks go back, it fires
once, at the first occurrence; on a date that the zone skipped, it does not fire. A wildcard job
(minute or hour begins with `*`) fires whenever the wall clock matches: not at a skipped time, and
twice at a repeated one.

CronSim only finds the matching wall-clock times; clock changes are handled here. For wildcard jobs
CronSim's own handling misses fires in Australia/Lord_Howe, whose clocks change by half an hour, and
never returns where midnight occurs twice (America/St_Johns, 2010).
"""

import heapq
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

from daybook_domain.reports.business_day import (
    LAST_DATE,
    first_instant_of_wall_time,
    get_zone,
    list_skipped_dates,
    wall_time,
)
from daybook_domain.schedules.cron import syntax
from daybook_domain.schedules.errors import InvalidCron

SEARCH_LIMIT = timedelta(days=36_525)
"""Time without a match after which an expression never fires: 29 February falls on each weekday
within 40 years."""

_SECOND = timedelta(seconds=1)

_ONE_SHOT_PREFIX = "@at "
"""Followed by an instant: fires once. Only for schedules that come from TaskIQ."""


def validate(expression: str) -> str:
    """Return `expression`, or raise `InvalidCron` if it is malformed or never fires."""
    syntax.check_characters(expression)
    syntax.parse(expression)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    if next_fire(expression, timezone="UTC", after=start) is None:
        raise InvalidCron(f"'{expression}' never fires; expected a date that exists", field="cron")
    return expression


def one_shot(at: datetime) -> str:
    """Return the expression that fires once, at that instant."""
    return f"{_ONE_SHOT_PREFIX}{at.astimezone(UTC).isoformat()}"


def iter_fires(expression: str, *, timezone: str, after: datetime) -> Iterator[datetime]:
    """Yield the due times (UTC) strictly after `after`, in order, until the last one."""
    if expression.startswith(_ONE_SHOT_PREFIX):
        at = datetime.fromisoformat(expression.removeprefix(_ONE_SHOT_PREFIX))
        if at > after:
            yield at
        return
    if after.date() > LAST_DATE:
        return
    fields, zone = syntax.parse(expression), get_zone(timezone)
    start = wall_time(after, zone=zone)
    if _is_wildcard_job(fields):
        walls = _iter_wall_times(fields, start - _repeated_span(after, zone))
        instants = _iter_occurrences(walls, zone)
    else:
        instants = (
            first_instant_of_wall_time(wall, zone=zone)
            for wall in _iter_existing_dates(fields, start, timezone)
        )
    previous = after
    for instant in instants:
        # A gap can move two due times to the same instant; that is one fire.
        if instant > previous:
            yield instant
            previous = instant


@lru_cache(maxsize=16_384)
def next_fire(expression: str, *, timezone: str, after: datetime) -> datetime | None:
    """Return the first due time (UTC) strictly after `after`, or None.

    Cached, because many of ten thousand schedules have the same cron, zone and due time.
    """
    return next(iter_fires(expression, timezone=timezone, after=after), None)


def is_after_gap(expression: str, *, timezone: str, at: datetime) -> bool:
    """Return whether the fire at `at` replaces a due time that a clock change skipped."""
    fields, zone = syntax.parse(expression), get_zone(timezone)
    before, after = wall_time(at - _SECOND, zone=zone), wall_time(at, zone=zone)
    if after - before <= _SECOND or _is_wildcard_job(fields):
        return False
    return next(_iter_existing_dates(fields, before, timezone), after) < after


def _is_wildcard_job(fields: str) -> bool:
    minute, hour, *_ = fields.split()
    return minute.startswith("*") or hour.startswith("*")


def _iter_wall_times(fields: str, after: datetime) -> Iterator[datetime]:
    """Yield the matching wall-clock times (naive) strictly after `after`, without clock changes.

    They end with the calendar; CronSim overflows where it finds no match before that end.
    """
    with suppress(OverflowError):
        yield from takewhile(lambda wall: wall.date() <= LAST_DATE, CronSim(fields, after))


def _iter_existing_dates(fields: str, after: datetime, timezone: str) -> Iterator[datetime]:
    """Yield the matching wall-clock times on dates that exist in the zone, those in gaps too."""
    skipped = list_skipped_dates(timezone)
    return (wall for wall in _iter_wall_times(fields, after) if wall.date() not in skipped)


def _iter_occurrences(walls: Iterator[datetime], zone: ZoneInfo) -> Iterator[datetime]:
    """Yield each instant at which the wall clock shows one of `walls`, in order."""
    repeated: list[datetime] = []
    latest = None
    for wall in walls:
        latest = latest or wall
        first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if wall_time(first, zone=zone) != wall:
            if wall - latest > SEARCH_LIMIT:
                return  # `* 2 * MAR 7L` in Berlin would search until the end of the calendar.
            continue  # A clock change skipped it.
        latest = wall
        # First occurrences are in the order of the walls, so nothing earlier than this one follows.
        while repeated and repeated[0] < first:
            yield heapq.heappop(repeated)
        yield first
        if second != first:
            heapq.heappush(repeated, second)


def _repeated_span(after: datetime, zone: ZoneInfo) -> timedelta:
    """Return by how much the clocks go back within a day: those wall-clock times will repeat."""
    tomorrow = after + timedelta(days=1)
    elapsed = wall_time(tomorrow, zone=zone) - wall_time(after, zone=zone)
    return max(timedelta(0), timedelta(days=1) - elapsed)
