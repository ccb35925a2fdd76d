"""Cron expressions, against a wall clock that is read minute by minute."""

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice, takewhile
from types import FrameType
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daybook_domain.reports.business_day import LAST_DATE, business_day, shift_date
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.errors import InvalidCron
from daybook_domain.schedules.materialization import get_report_date
from daybook_domain.schedules.models import Schedule, ScheduleOrigin
from tests.support.zones import distinct_zones

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)

MOVED = [
    ("Europe/Berlin", date(2024, 3, 31)),
    ("Europe/Berlin", date(2024, 10, 27)),
    ("Africa/Cairo", date(2024, 4, 26)),
    ("America/Havana", date(2024, 11, 3)),
    ("America/Santiago", date(2024, 4, 7)),
    ("America/Santiago", date(2024, 9, 8)),
    ("America/St_Johns", date(2010, 3, 14)),
    ("America/St_Johns", date(2010, 11, 7)),
    ("Australia/Lord_Howe", date(2024, 4, 7)),
    ("Australia/Lord_Howe", date(2024, 10, 6)),
    ("Pacific/Apia", date(2011, 12, 30)),
]
"""Zones, and dates on which their clocks were moved, each in another way."""

numbers = {"minute": st.integers(0, 59), "hour": st.integers(0, 23)}


def spelled(values: frozenset[int]) -> str:
    return ",".join(map(str, sorted(values)))


def utc(*args: int) -> datetime:
    return datetime(*args, tzinfo=UTC)  # type: ignore[misc,arg-type]


def readings(
    first: datetime, last: datetime, zone: ZoneInfo
) -> Iterator[tuple[datetime, datetime]]:
    """Yield each minute after `first` up to `last`, and what a clock in `zone` reads then."""
    instant = first + MINUTE
    while instant <= last:
        yield instant, instant.astimezone(zone).replace(tzinfo=None)
        instant += MINUTE


def until(last: datetime, expression: str, timezone: str, after: datetime) -> list[datetime]:
    due = due_times.iter_fires(expression, timezone=timezone, after=after)
    return list(takewhile(lambda instant: instant <= last, due))


@given(
    st.sampled_from(MOVED),
    st.frozensets(numbers["minute"], min_size=1, max_size=3),
    st.frozensets(numbers["hour"], min_size=1, max_size=3),
    st.integers(0, 48 * 60),
)
@settings(max_examples=30, deadline=None)
def test_a_job_at_fixed_times_fires_once_for_each_time_on_the_clock(
    moved: tuple[str, date], minutes: frozenset[int], hours: frozenset[int], start: int
) -> None:
    timezone, day = moved
    zone = ZoneInfo(timezone)
    after = utc(day.year, day.month, day.day) - DAY + start * MINUTE
    last = after + 3 * DAY
    wanted: set[datetime] = set()
    latest = after.astimezone(zone).replace(tzinfo=None)
    # Every reading that the clock comes to for the first time fires; one that it jumps over fires
    # where it lands.
    for instant, wall in readings(after - DAY, last, zone):
        if instant <= after:
            latest = max(latest, wall)
            continue
        passed = latest + MINUTE
        while passed <= wall:
            never_was = (timezone, passed.date()) == ("Pacific/Apia", date(2011, 12, 30))
            if passed.minute in minutes and passed.hour in hours and not never_was:
                wanted.add(instant)
            passed += MINUTE
        latest = max(latest, wall)

    expression = f"{spelled(minutes)} {spelled(hours)} * * *"

    assert until(last, expression, timezone, after) == sorted(wanted)


@given(
    st.sampled_from(MOVED),
    st.sampled_from(["* 0", "* 23", "*/7 3", "*/20 1", "*/30 2", "0 *", "59 *", "30 */2", "* *"]),
    st.integers(0, 48 * 60),
)
@settings(max_examples=50, deadline=None)
@example(("America/St_Johns", date(2010, 11, 7)), "* 0", 0)
@example(("Australia/Lord_Howe", date(2024, 4, 7)), "*/7 3", 0)
def test_a_job_that_goes_with_the_clock_fires_whenever_the_clock_agrees(
    moved: tuple[str, date], fields: str, start: int
) -> None:
    timezone, day = moved
    after = utc(day.year, day.month, day.day) - DAY + start * MINUTE
    last = after + 3 * DAY
    # In UTC, where nobody moves the clock, an expression says which readings it means.
    meant = {
        instant.replace(tzinfo=None)
        for instant in until(last + 2 * DAY, f"{fields} * * *", "UTC", after - 2 * DAY)
    }
    wanted = [i for i, wall in readings(after, last, ZoneInfo(timezone)) if wall in meant]

    assert until(last, f"{fields} * * *", timezone, after) == wanted


def test_a_nightly_fire_reports_every_date_of_every_zone_exactly_once_after_it_ended() -> None:
    wrong = []
    for first, last in (
        (date(2010, 10, 1), date(2010, 12, 1)),
        (date(2011, 12, 1), date(2012, 1, 31)),
        (date(2024, 2, 15), date(2024, 11, 15)),
    ):
        zones = (
            ["Pacific/Apia", "America/St_Johns"]
            if first.year < 2024
            else distinct_zones(first, last)
        )
        for timezone in zones:
            schedule = make_schedule(cron="0 0 * * *", timezone=timezone)
            day = business_day(first, timezone=timezone)
            for at in due_times.iter_fires("0 0 * * *", timezone=timezone, after=day.starts_at):
                reported = business_day(get_report_date(schedule, at), timezone=timezone)
                if reported.starts_at != day.starts_at or reported.ends_at != at:
                    wrong.append((timezone, at))
                if reported.date >= last:
                    break
                day = business_day(
                    shift_date(reported.date, days=1, timezone=timezone), timezone=timezone
                )
    assert wrong == []


def test_the_night_after_a_date_that_never_was_reports_the_last_date_that_was() -> None:
    schedule = make_schedule(cron="0 0 * * *", timezone="Pacific/Apia")
    due = due_times.iter_fires("0 0 * * *", timezone="Pacific/Apia", after=utc(2011, 12, 29))

    assert [get_report_date(schedule, at) for at in islice(due, 3)] == [
        date(2011, 12, 28),
        date(2011, 12, 29),
        date(2011, 12, 31),
    ]


@pytest.mark.parametrize(
    ("timezone", "after", "expected"),
    [
        ("Europe/Berlin", utc(2024, 3, 31, 0, 59), utc(2024, 3, 31, 1)),
        ("Europe/Berlin", utc(2024, 10, 26, 12), utc(2024, 10, 27, 0, 30)),
        # The second occurrence of 02:30 is not a fire.
        ("Europe/Berlin", utc(2024, 10, 27, 0, 30), utc(2024, 10, 28, 1, 30)),
        ("Europe/Berlin", utc(2024, 10, 27, 1, 15), utc(2024, 10, 28, 1, 30)),
    ],
)
def test_a_fixed_time_is_moved_over_a_gap_and_fires_once_in_a_fold(
    timezone: str, after: datetime, expected: datetime
) -> None:
    assert due_times.next_fire("30 2 * * *", timezone=timezone, after=after) == expected


def test_the_next_fire_is_strictly_later() -> None:
    at = utc(2024, 5, 1)

    assert due_times.next_fire("0 0 * * *", timezone="UTC", after=at) == at + DAY
    assert (
        due_times.next_fire("0 0 * * *", timezone="UTC", after=at - timedelta(microseconds=1)) == at
    )


@pytest.mark.parametrize("timezone", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("expression", ["0 0 29 2 *", "30 2 * * *", "*/30 * * * *"])
def test_fires_end_with_the_calendar(expression: str, timezone: str) -> None:
    after = utc(9995, 1, 1) if "29" in expression else utc(9998, 12, 30)
    zone = ZoneInfo(timezone)

    due = list(due_times.iter_fires(expression, timezone=timezone, after=after))

    assert due
    assert due[-1].astimezone(zone).date() <= LAST_DATE
    assert (
        list(due_times.iter_fires(expression, timezone=timezone, after=utc(9999, 12, 31, 23))) == []
    )


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("@hourly", utc(2024, 5, 1, 11)),
        ("@daily", utc(2024, 5, 2)),
        (" @Midnight ", utc(2024, 5, 2)),
        ("@weekly", utc(2024, 5, 5)),
        ("@monthly", utc(2024, 6, 1)),
        ("@yearly", utc(2025, 1, 1)),
        ("@annually", utc(2025, 1, 1)),
    ],
)
def test_an_alias_means_what_its_name_says(alias: str, expected: datetime) -> None:
    assert due_times.next_fire(alias, timezone="UTC", after=utc(2024, 5, 1, 10, 7)) == expected


@pytest.mark.parametrize(
    ("spelled", "out"),
    [
        ("0 0 ? * 1", "0 0 * * 1"),
        ("0 0 1 * ?", "0 0 1 * *"),
        ("0 0 * * FRI-SUN", "0 0 * * 5-7"),
        ("0 0 * * 1-0/3,mon-sun/6", "0 0 * * 1,4,7"),
        ("5-5/2 3-3 * * *", "5 3 * * *"),
        ("0 5-05/2,05-5/3 * * *", "0 5 * * *"),
        ("0 0 * * MON-1/2", "0 0 * * 1"),
        ("0 0 1 JAN-1/2 *", "0 0 1 1 *"),
        ("0 0 * * 0-SUN/2", "0 0 * * 0"),
    ],
)
def test_two_ways_to_write_one_expression_mean_the_same(spelled: str, out: str) -> None:
    after = utc(2024, 5, 1)
    one, other = (due_times.iter_fires(e, timezone="UTC", after=after) for e in (spelled, out))

    assert list(islice(one, 10)) == list(islice(other, 10))
    assert due_times.validate(spelled) == spelled


@pytest.mark.parametrize(
    "expression",
    [
        *("0 0 1-1/2-3 * *", "0 0 1-1/2/2 * *", "0-0/1/1 * * * *", "0 5-5/2-5/2 * * *"),
        *("0 0 * * 0-0/5#2", "0 0 * * MON-MON/2#1", "0 0 * * 5-5/2L", "0 0 * * 5L-5L/2"),
        *("0 0 L-L/2 * *", "0 0 LW-LW/3 * *", "5-5/0 * * * *", "0 0 ?,? * *", "0 0 ?/2 * *"),
    ],
)
def test_what_looks_like_another_way_to_write_one_is_refused(expression: str) -> None:
    with pytest.raises(InvalidCron, match=r"\(position \d+\)"):
        due_times.validate(expression)


@pytest.mark.parametrize(
    "expression",
    ["0 0 * * *", "@daily", "*/5 9-17 * * MON-FRI", "0\t0 29 2 *", "0 0 L * *", "0 0 * * 5#3"],
)
def test_an_expression_that_comes_true_is_returned(expression: str) -> None:
    assert due_times.validate(expression) == expression


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "has 0 fields; expected five"),
        ("0 0 * *", "has 4 fields; expected five"),
        ("0 0 0 * * *", "has 6 fields; expected five"),
        ("@reboot", "has 1 fields; expected five"),
        ("60 0 * * *", r"^minute: 60 is not 0-59 \(position 1\)$"),
        ("0 24 * * *", r"hour: 24 is not 0-23 \(position 3\)"),
        ("0  0,25 * * *", r"hour: 25 is not 0-23 \(position 6\)"),
        ("0 0 32 * *", r"day-of-month: 32 is not 1-31 \(position 5\)"),
        ("0 0 * 13 *", r"month: 13 is not 1-12 or JAN-DEC \(position 7\)"),
        ("0 0 * * FOO", r"day-of-week: FOO is not 0-7 or SUN-SAT \(position 9\)"),
        ("0 0 * * 8", r"day-of-week: 8 is not 0-7 or SUN-SAT \(position 9\)"),
        ("*/0 * * * *", r"minute: the step of \*/0 is not a whole number above 0"),
        ("5-5/0 * * * *", r"minute: the step of 5-5/0 is not a whole number above 0"),
        ("? * * * *", r"minute: \? is not 0-59"),
        ("0 0 L/2 * *", r"day-of-month: no step can follow L \(position 5\)"),
        ("0 0 1,lw/2 * *", r"day-of-month: no step can follow lw \(position 7\)"),
        ("0 0 ?,1 * *", r"day-of-month: \? is not 1-31 \(position 5\)"),
        ("0 0 * * SAT-MON", r"day-of-week: the range SAT-MON runs backwards"),
        ("0 0 1-7 * MON-FRI#1", r"day-of-week: MON-FRI is not 0-7 or SUN-SAT \(position 11\)"),
        ("0 0 1 * 1-5L", r"day-of-week: 5L is not 0-7 or SUN-SAT \(position 9\)"),
        ("0\n0 * * *  *", r"U\+000A is no space \(position 2\)"),
        ("0 0\xa0* * * *", r"U\+00A0 is no space \(position 4\)"),
        ("0 0 * * *\x00", r"U\+0000 is no space \(position 10\)"),
        ("5-1 * * * *", r"minute: the range 5-1 runs backwards"),
        ("-1 * * * *", r"minute: -1 is not 0-59"),
        ("1,,2 * * * *", r"minute: an item of the list is empty \(position 3\)"),
        ("0 0 30 2 *", r"day-of-month: none of the months has a day 30 \(position 5\)"),
        ("0 0 31 APR,JUN *", r"day-of-month: none of the months has a day 31 \(position 5\)"),
        ("0 0 1 2 *" + " " * 200, "at most 200"),
    ],
)
def test_an_expression_that_cannot_be_read_is_refused_with_the_reason(
    expression: str, why: str
) -> None:
    with pytest.raises(InvalidCron, match=why) as refusal:
        due_times.validate(expression)

    assert refusal.value.field == "cron"


@given(st.text(max_size=30))
@example("0 0 ٣ * *")
@example("0 0 * * L")
@example("0 0 */L * *")
@example("L/2 0 * * *")
@example("0 0 L/2 * *")
@example("0 0 1#1 * *")
@example("0 0 1-L * *")
@example("0 0 * * 1L/2")
@example("0 0 * * 1#2/2")
@example("0 0 L,5/3 * *")
@example("0 0 LW/2 * *")
def test_any_text_is_either_an_expression_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidCron):
        assert due_times.validate(text) == text


@pytest.mark.parametrize(
    ("expression", "timezone"),
    [("* 2 * MAR 7L", "Europe/Berlin"), ("*/30 2 * 3 0#2", "America/New_York")],
)
def test_what_the_clocks_always_jump_over_is_given_up_after_a_century(
    expression: str, timezone: str
) -> None:
    asked = 0

    def count(_frame: FrameType, event: str, function: object) -> None:
        nonlocal asked
        # CronSim is asked for the next reading by a loop in C.
        asked += event == "call" and _frame.f_code is CronSim.__next__.__code__

    sys.setprofile(count)
    try:
        due = list(due_times.iter_fires(expression, timezone=timezone, after=utc(2026, 1, 1)))
    finally:
        sys.setprofile(None)

    assert due == []
    assert 100 < asked <= 101 * 60


def make_schedule(*, cron: str, timezone: str) -> Schedule:
    return Schedule(name="daily", cron=cron, timezone=timezone, origin=ScheduleOrigin.SETTINGS)
