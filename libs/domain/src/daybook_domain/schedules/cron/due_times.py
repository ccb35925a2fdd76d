"""When does a cron expression come true? Pure: five fields or an alias, in an IANA zone.

A job at fixed times (`30 2 * * *`), as in Debian's cron: clocks put forward over a due time, it
fires at the first valid instant after the gap; clocks put back, it fires once, at the first
occurrence; on a date that the zone never had, not at all. A job that goes with the clock (minute
or hour begins with `*`) fires whenever the clock on the wall agrees: never at a time that was
jumped over, twice at one that comes twice.

CronSim only finds the readings of the wall clock, and the change of clocks is seen to here: for
jobs that go with the clock its own treatment loses fires in Australia/Lord_Howe, whose clocks move
by half an hour, and never returns where midnight came twice (America/St_Johns, 2010).
"""

import heapq
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from daybook_domain.reports.business_day import (
    LAST_DATE,
    first_instant_of_wall_time,
    get_zone,
    list_skipped_dates,
    wall_time,
)
from daybook_domain.schedules.cron import syntax
from daybook_domain.schedules.errors import InvalidCron

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

MAX_LENGTH = 200

SEARCH_LIMIT = timedelta(days=36_525)
"""What has not come true for so long never will: 29 February is each weekday within 40 years."""

_SECOND = timedelta(seconds=1)

_ONCE = "@at "
"""Followed by an instant: comes true once. For schedules that people did not write."""


def validate(expression: str) -> str:
    """Return `expression`, or raise `InvalidCron` if it cannot be read or never comes true."""
    if len(expression) > MAX_LENGTH:
        raise InvalidCron(
            f"the expression has {len(expression)} characters; at most {MAX_LENGTH} fit",
            field="cron",
        )
    for position, character in enumerate(expression, start=1):
        if not (character.isprintable() or character == "\t"):
            problem = f"U+{ord(character):04X} is no space (position {position})"
            raise InvalidCron(problem, field="cron")
    _plain(expression)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    if next_fire(expression, timezone="UTC", after=start) is None:
        raise InvalidCron(f"'{expression}' never comes true; is there such a date?", field="cron")
    return expression


def once(at: datetime) -> str:
    """Return the expression that comes true at that instant, and never again."""
    return f"{_ONCE}{at.astimezone(UTC).isoformat()}"


def iter_fires(expression: str, *, timezone: str, after: datetime) -> Iterator[datetime]:
    """Yield the due times (UTC) strictly after `after`, in order; ends when there are no more."""
    if expression.startswith(_ONCE):
        at = datetime.fromisoformat(expression.removeprefix(_ONCE))
        if at > after:
            yield at
        return
    if after.date() > LAST_DATE:
        return
    plain, zone = _plain(expression), get_zone(timezone)
    start = wall_time(after, zone=zone)
    if _goes_with_the_clock(plain):
        instants = _whenever(_walls(plain, start - _to_repeat(after, zone)), zone)
    else:
        instants = (
            first_instant_of_wall_time(wall, zone=zone) for wall in _fixed(plain, start, timezone)
        )
    previous = after
    for instant in instants:
        # A gap can bring two due times to the same instant; it is one fire.
        if instant > previous:
            yield instant
            previous = instant


@lru_cache(maxsize=16_384)
def next_fire(expression: str, *, timezone: str, after: datetime) -> datetime | None:
    """Return the first due time (UTC) strictly after `after`; None when there is none.

    Remembered: of ten thousand schedules many have the same cron, zone and due time.
    """
    return next(iter_fires(expression, timezone=timezone, after=after), None)


def is_after_gap(expression: str, *, timezone: str, at: datetime) -> bool:
    """Tell whether the fire at `at` stands for a time that the clocks have just jumped over."""
    plain, zone = _plain(expression), get_zone(timezone)
    before, after = wall_time(at - _SECOND, zone=zone), wall_time(at, zone=zone)
    if after - before <= _SECOND or _goes_with_the_clock(plain):
        return False
    return next(_fixed(plain, before, timezone), after) < after


def _plain(expression: str) -> str:
    plain = ALIASES.get(expression.strip().lower(), expression)
    try:
        if len(plain.split()) != syntax.FIELD_COUNT:
            # CronSim would take a sixth, of seconds.
            raise InvalidCron(syntax.explain(expression), field="cron")
        plain = syntax.normalize(plain)
        CronSim(plain, datetime.min)  # noqa: DTZ901 # only parsed
    except CronSimError as error:
        raise InvalidCron(syntax.explain(expression), field="cron") from error
    return plain


def _goes_with_the_clock(plain: str) -> bool:
    minute, hour, *_ = plain.split()
    return minute.startswith("*") or hour.startswith("*")


def _walls(plain: str, after: datetime) -> Iterator[datetime]:
    """Yield the readings (naive) of a clock that nobody moves, strictly after `after`.

    They end with the calendar, to whose end CronSim may find none any more, and fails.
    """
    with suppress(OverflowError):
        yield from takewhile(lambda wall: wall.date() <= LAST_DATE, CronSim(plain, after))


def _fixed(plain: str, after: datetime, timezone: str) -> Iterator[datetime]:
    """Yield the readings after `after` on dates that the zone has had, jumped over or not."""
    lost = list_skipped_dates(timezone)
    return (wall for wall in _walls(plain, after) if wall.date() not in lost)


def _whenever(walls: Iterator[datetime], zone: ZoneInfo) -> Iterator[datetime]:
    """Yield each instant that reads one of the `walls`, in order."""
    repeated: list[datetime] = []
    latest = None
    for wall in walls:
        latest = latest or wall
        first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if wall_time(first, zone=zone) != wall:
            if wall - latest > SEARCH_LIMIT:
                return  # `* 2 * MAR 7L` in Berlin: it would be until the end of the calendar.
            continue  # It was jumped over.
        latest = wall
        # First occurrences keep the order of the walls, so nothing earlier than this one follows.
        while repeated and repeated[0] < first:
            yield heapq.heappop(repeated)
        yield first
        if second != first:
            heapq.heappush(repeated, second)


def _to_repeat(after: datetime, zone: ZoneInfo) -> timedelta:
    """Return how far back the clock will be put within a day: those readings are yet to repeat."""
    tomorrow = after + timedelta(days=1)
    kept = wall_time(tomorrow, zone=zone) - wall_time(after, zone=zone)
    return max(timedelta(0), timedelta(days=1) - kept)
