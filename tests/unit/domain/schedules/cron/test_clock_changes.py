"""Each local date has one daily report, through every clock change of every zone.

The oracle uses no cron library: it reads the wall clock minute by minute.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daybook_domain.reports.business_day import business_day, shift_date
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.fire_planning import get_report_date
from daybook_domain.schedules.models import Schedule, ScheduleOrigin
from tests.support.clock import distinct_zones

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
FIRST, LAST = datetime(2024, 1, 1, 12, tzinfo=UTC), datetime(2031, 1, 1, 12, tzinfo=UTC)
SOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TIMES = (time(0), time(0, 30), time(2), time(2, 30), time(3))
ZONES = sorted(available_timezones() - {"localtime", "Factory"})


@dataclass(frozen=True)
class ClockChange:
    """A clock change; zones that share it have the same wall-clock times around it."""

    at: datetime
    before: timedelta
    after: timedelta


def offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def iter_changes(
    name: str, first: datetime = FIRST, last: datetime = LAST
) -> Iterator[ClockChange]:
    zone = ZoneInfo(name)
    noons = [first + k * DAY for k in range((last - first).days + 1)]
    for earlier, later in pairwise(noons):
        before, after = offset(zone, earlier), offset(zone, later)
        if before != after:
            while later - earlier > MINUTE:
                middle = earlier + (later - earlier) // 2
                middle = middle.replace(second=0, microsecond=0)
                earlier, later = (
                    (middle, later) if offset(zone, middle) == before else (earlier, middle)
                )
            yield ClockChange(later, before, after)


@lru_cache(maxsize=4096)
def readings(change: ClockChange) -> list[tuple[datetime, datetime]]:
    """Return each minute within a day and a half of a change, with its wall-clock time."""
    minutes = [change.at + k * MINUTE for k in range(-36 * 60, 36 * 60)]
    return [
        (at, (at + (change.before if at < change.at else change.after)).replace(tzinfo=None))
        for at in minutes
    ]


@lru_cache(maxsize=20_000)
def expected(change: ClockChange, due: time) -> list[tuple[datetime, date]]:
    """Return when the clock first reaches or passes `due` on each date, with the date.

    Skipped dates have no wall-clock times, so they are absent.
    """
    read = readings(change)
    dates = sorted({wall.date() for _, wall in read[::10]})
    # A date whose due time precedes the window is excluded.
    due_at = [datetime.combine(day, due) for day in dates]
    remaining = deque(wall for wall in due_at if wall > read[0][1])
    found = list[tuple[datetime, date]]()
    for at, wall in read:
        passed = None
        while remaining and remaining[0] <= wall:
            passed = remaining.popleft()
        if passed is not None:
            found.append((at, passed.date()))
    return found


def fires(name: str, due: time, change: ClockChange) -> list[datetime]:
    read = readings(change)
    all_fires = due_times.iter_fires(
        f"{due.minute} {due.hour} * * *", timezone=name, after=read[0][0]
    )
    return list(takewhile(lambda at: at <= read[-1][0], all_fires))


@cache
def daily(due: time, timezone: str) -> Schedule:
    expression = f"{due.minute} {due.hour} * * *"
    return Schedule(
        name="daily", cron=expression, timezone=timezone, origin=ScheduleOrigin.SETTINGS
    )


@pytest.mark.parametrize(
    ("zones", "last"),
    [
        pytest.param(distinct_zones(FIRST.date(), SOON.date()), SOON, id="two years"),
        pytest.param(ZONES, LAST, id="seven years", marks=pytest.mark.slow),
    ],
)
def test_each_date_has_one_fire_through_every_clock_change(
    zones: Sequence[str], last: datetime
) -> None:
    wrong, seen = [], 0
    for name in zones:
        for change in iter_changes(name, last=last):
            for due in TIMES:
                seen += 1
                wanted, actual = expected(change, due), fires(name, due, change)
                dates = [get_report_date(daily(due, name), at) for at in actual]
                if actual != [at for at, _ in wanted] or dates != [day - DAY for _, day in wanted]:
                    wrong.append((name, change, due, actual, wanted))
    assert wrong == []
    assert seen > 500


def test_the_oracle_agrees_with_the_time_zone_database() -> None:
    for name in ("Africa/Cairo", "America/Santiago", "Asia/Beirut", "Australia/Lord_Howe"):
        zone, found = ZoneInfo(name), list(iter_changes(name))
        assert len(found) >= 12
        for change in found:
            assert [wall for _, wall in readings(change)] == [
                at.astimezone(zone).replace(tzinfo=None) for at, _ in readings(change)
            ]


@pytest.mark.parametrize("due", TIMES)
def test_a_skipped_date_has_no_fire_and_the_date_before_it_has_one_report(due: time) -> None:
    schedule = daily(due, "Pacific/Apia")
    # The local time is 03:30 on the 28th.
    after = datetime(2011, 12, 28, 13, 30, tzinfo=UTC)
    fires = islice(due_times.iter_fires(schedule.cron, timezone="Pacific/Apia", after=after), 3)

    assert [get_report_date(schedule, at) for at in fires] == [
        date(2011, 12, 28),
        date(2011, 12, 29),
        date(2011, 12, 31),
    ]
    skipped = business_day(date(2011, 12, 30), timezone="Pacific/Apia")
    assert skipped.starts_at == skipped.ends_at
    assert shift_date(date(2011, 12, 31), days=-1, timezone="Pacific/Apia") == date(2011, 12, 29)


EXPRESSIONS = st.sampled_from(
    ["*/7 * * * *", "30 2 * * *", "0 */3 * * *", "15,45 1-3 * * *", "0 0 L * *", "5 0 * * 1#1"]
)
INSTANTS = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 # Hypothesis adds the zone


@cache
def change_instants(name: str) -> list[datetime]:
    return [change.at for change in iter_changes(name)]


@st.composite
def zones_and_instants(draw: st.DrawFn) -> tuple[str, datetime]:
    """Return a zone and an instant; half of the instants are near a clock change of the zone."""
    name, at = draw(st.sampled_from(ZONES)), draw(INSTANTS)
    near = draw(st.booleans())
    if near and change_instants(name):
        at = draw(st.sampled_from(change_instants(name))) + draw(st.integers(-180, 90)) * MINUTE
    return name, at


# The clocks of Lord Howe are about to go back from 02:00 to 01:30.
BEFORE_FOLD = ("Australia/Lord_Howe", datetime(2024, 4, 6, 14, 50, tzinfo=UTC))


@given(EXPRESSIONS, zones_and_instants(), st.integers(1, 30))
@example("*/7 * * * *", BEFORE_FOLD, 10)
@settings(max_examples=200, deadline=None)
def test_next_fire_and_iter_fires_return_the_same_increasing_times(
    expression: str, zone_and_instant: tuple[str, datetime], number: int
) -> None:
    timezone, after = zone_and_instant
    iterated = due_times.iter_fires(expression, timezone=timezone, after=after)
    at = after
    for _ in range(number):
        following = due_times.next_fire(expression, timezone=timezone, after=at)
        assert following == next(iterated)
        assert following is not None
        assert following > at
        at = following


@given(EXPRESSIONS, zones_and_instants(), st.integers(0, 5000), st.integers(0, 5000))
@example("*/7 * * * *", BEFORE_FOLD, 60, 60)
@settings(max_examples=200, deadline=None)
def test_the_fires_of_a_range_are_those_of_its_parts(
    expression: str, zone_and_instant: tuple[str, datetime], minutes: int, more: int
) -> None:
    # The boundary between the parts is near a clock change.
    timezone, b = zone_and_instant
    a = b - minutes * MINUTE
    c = b + more * MINUTE

    def between(first: datetime, last: datetime) -> list[datetime]:
        due = due_times.iter_fires(expression, timezone=timezone, after=first)
        return list(takewhile(lambda at: at <= last, due))

    assert between(a, c) == between(a, b) + between(b, c)
