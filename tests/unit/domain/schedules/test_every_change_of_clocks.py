"""Each local date has one daily report, through every change of clocks of every zone.

The oracle knows no cron: it reads the clock on the wall minute by minute.
"""

from collections.abc import Iterator
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
from daybook_domain.schedules.materialization import get_report_date
from daybook_domain.schedules.models import Schedule, ScheduleOrigin

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
FIRST, LAST = datetime(2024, 1, 1, 12, tzinfo=UTC), datetime(2031, 1, 1, 12, tzinfo=UTC)
TIMES = (time(0), time(0, 30), time(2), time(2, 30), time(3))
ZONES = sorted(available_timezones() - {"localtime", "Factory"})


@dataclass(frozen=True)
class Move:
    """A change of clocks. Around it, zones that have it in common read the same."""

    at: datetime
    before: timedelta
    after: timedelta


def offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def moves(name: str, first: datetime = FIRST, last: datetime = LAST) -> Iterator[Move]:
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
            yield Move(later, before, after)


@lru_cache(maxsize=4096)
def readings(move: Move) -> list[tuple[datetime, datetime]]:
    """Return each minute from a day and a half before to as long after, and what is read then."""
    minutes = [move.at + k * MINUTE for k in range(-36 * 60, 36 * 60)]
    return [
        (at, (at + (move.before if at < move.at else move.after)).replace(tzinfo=None))
        for at in minutes
    ]


@lru_cache(maxsize=20_000)
def expected(move: Move, due: time) -> list[tuple[datetime, date]]:
    """Return when the clock first comes to `due`, or past it, on each date, and which date it is.

    A date that begins and ends in the same moment never was: it is not read.
    """
    read = readings(move)
    dates = sorted({wall.date() for _, wall in read})
    # What had been read before the window began is not of it.
    left = [day for day in dates if datetime.combine(day, due) > read[0][1]]
    found = list[tuple[datetime, date]]()
    for at, wall in read:
        passed = [day for day in left[:2] if datetime.combine(day, due) <= wall]
        if passed:
            found.append((at, passed[-1]))
            left = left[len(passed) :]
    return found


def fires(name: str, due: time, move: Move) -> list[datetime]:
    read = readings(move)
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


def test_every_zone_and_every_change_of_seven_years() -> None:
    wrong, seen = [], 0
    for name in ZONES:
        for move in moves(name):
            for due in TIMES:
                seen += 1
                wanted, got = expected(move, due), fires(name, due, move)
                dates = [get_report_date(daily(due, name), at) for at in got]
                if got != [at for at, _ in wanted] or dates != [day - DAY for _, day in wanted]:
                    wrong.append((name, move, due, got, wanted))
    assert wrong == []
    assert seen > 10_000


def test_the_oracle_reads_what_the_zone_reads() -> None:
    for name in ("Africa/Cairo", "America/Santiago", "Asia/Beirut", "Australia/Lord_Howe"):
        zone, found = ZoneInfo(name), list(moves(name))
        assert len(found) >= 12
        for move in found:
            assert [wall for _, wall in readings(move)] == [
                at.astimezone(zone).replace(tzinfo=None) for at, _ in readings(move)
            ]


@pytest.mark.parametrize("due", TIMES)
def test_a_date_that_never_was_has_no_fire_and_the_one_before_it_has_one_report(due: time) -> None:
    schedule = daily(due, "Pacific/Apia")
    # There it is the 28th, 03:30.
    after = datetime(2011, 12, 28, 13, 30, tzinfo=UTC)
    fires = islice(due_times.iter_fires(schedule.cron, timezone="Pacific/Apia", after=after), 3)

    assert [get_report_date(schedule, at) for at in fires] == [
        date(2011, 12, 28),
        date(2011, 12, 29),
        date(2011, 12, 31),
    ]
    never = business_day(date(2011, 12, 30), timezone="Pacific/Apia")
    assert never.starts_at == never.ends_at
    assert shift_date(date(2011, 12, 31), days=-1, timezone="Pacific/Apia") == date(2011, 12, 29)


EXPRESSIONS = st.sampled_from(
    ["*/7 * * * *", "30 2 * * *", "0 */3 * * *", "15,45 1-3 * * *", "0 0 L * *", "5 0 * * 1#1"]
)
INSTANTS = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 # Hypothesis adds the zone


@cache
def changes(name: str) -> list[datetime]:
    return [move.at for move in moves(name)]


@st.composite
def places_and_times(draw: st.DrawFn) -> tuple[str, datetime]:
    """Return a zone and an instant: of two, one soon before or after a change of its clocks."""
    name, at = draw(st.sampled_from(ZONES)), draw(INSTANTS)
    near = draw(st.booleans())
    if near and changes(name):
        at = draw(st.sampled_from(changes(name))) + draw(st.integers(-180, 90)) * MINUTE
    return name, at


# The clocks of Lord Howe are about to be put back from 02:00 to 01:30.
SOON_AGAIN = ("Australia/Lord_Howe", datetime(2024, 4, 6, 14, 50, tzinfo=UTC))


@given(EXPRESSIONS, places_and_times(), st.integers(1, 30))
@example("*/7 * * * *", SOON_AGAIN, 10)
@settings(max_examples=200, deadline=None)
def test_one_by_one_and_all_together_give_the_same_strictly_later_times(
    expression: str, place_and_time: tuple[str, datetime], number: int
) -> None:
    timezone, after = place_and_time
    together = due_times.iter_fires(expression, timezone=timezone, after=after)
    at = after
    for _ in range(number):
        following = due_times.next_fire(expression, timezone=timezone, after=at)
        assert following == next(together)
        assert following is not None
        assert following > at
        at = following


@given(EXPRESSIONS, places_and_times(), st.integers(0, 5000), st.integers(0, 5000))
@example("*/7 * * * *", SOON_AGAIN, 60, 60)
@settings(max_examples=200, deadline=None)
def test_a_range_is_the_sum_of_its_parts(
    expression: str, place_and_time: tuple[str, datetime], minutes: int, more: int
) -> None:
    # The cut is what is near a change of clocks.
    timezone, b = place_and_time
    a = b - minutes * MINUTE
    c = b + more * MINUTE

    def between(first: datetime, last: datetime) -> list[datetime]:
        due = due_times.iter_fires(expression, timezone=timezone, after=first)
        return list(takewhile(lambda at: at <= last, due))

    assert between(a, c) == between(a, b) + between(b, c)
