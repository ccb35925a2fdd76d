"""Due times of cron expressions, compared with a wall clock that is read minute by minute."""

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
from daybook_domain.schedules.fire_planning import get_report_date
from daybook_domain.schedules.models import Schedule, ScheduleOrigin
from tests.support.clock import distinct_zones

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)

CLOCK_CHANGES = [
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
"""Zones and dates of clock changes, each of another kind."""

numbers = {"minute": st.integers(0, 59), "hour": st.integers(0, 23)}


def to_list(values: frozenset[int]) -> str:
    return ",".join(map(str, sorted(values)))


def utc(*args: int) -> datetime:
    return datetime(*args, tzinfo=UTC)  # type: ignore[misc,arg-type]


def readings(
    first: datetime, last: datetime, zone: ZoneInfo
) -> Iterator[tuple[datetime, datetime]]:
    """Yield each minute after `first` up to `last`, with its wall-clock time in `zone`."""
    instant = first + MINUTE
    while instant <= last:
        yield instant, instant.astimezone(zone).replace(tzinfo=None)
        instant += MINUTE


def until(last: datetime, expression: str, timezone: str, after: datetime) -> list[datetime]:
    due = due_times.iter_fires(expression, timezone=timezone, after=after)
    return list(takewhile(lambda instant: instant <= last, due))


@given(
    st.sampled_from(CLOCK_CHANGES),
    st.frozensets(numbers["minute"], min_size=1, max_size=3),
    st.frozensets(numbers["hour"], min_size=1, max_size=3),
    st.integers(0, 48 * 60),
)
@settings(max_examples=30, deadline=None)
def test_a_fixed_time_job_fires_once_for_each_wall_clock_time(
    clock_change: tuple[str, date], minutes: frozenset[int], hours: frozenset[int], start: int
) -> None:
    timezone, day = clock_change
    zone = ZoneInfo(timezone)
    after = utc(day.year, day.month, day.day) - DAY + start * MINUTE
    last = after + 3 * DAY
    expected: set[datetime] = set()
    latest = after.astimezone(zone).replace(tzinfo=None)
    # Each wall-clock time fires when it first occurs; a skipped one fires at the end of the gap.
    for instant, wall in readings(after - DAY, last, zone):
        if instant <= after:
            latest = max(latest, wall)
            continue
        passed = latest + MINUTE
        while passed <= wall:
            is_skipped_date = (timezone, passed.date()) == ("Pacific/Apia", date(2011, 12, 30))
            if passed.minute in minutes and passed.hour in hours and not is_skipped_date:
                expected.add(instant)
            passed += MINUTE
        latest = max(latest, wall)

    expression = f"{to_list(minutes)} {to_list(hours)} * * *"

    assert until(last, expression, timezone, after) == sorted(expected)


@given(
    st.sampled_from(CLOCK_CHANGES),
    st.sampled_from(["* 0", "* 23", "*/7 3", "*/20 1", "*/30 2", "0 *", "59 *", "30 */2", "* *"]),
    st.integers(0, 48 * 60),
)
@settings(max_examples=50, deadline=None)
@example(("America/St_Johns", date(2010, 11, 7)), "* 0", 0)
@example(("Australia/Lord_Howe", date(2024, 4, 7)), "*/7 3", 0)
def test_a_wildcard_job_fires_whenever_the_wall_clock_matches(
    clock_change: tuple[str, date], fields: str, start: int
) -> None:
    timezone, day = clock_change
    after = utc(day.year, day.month, day.day) - DAY + start * MINUTE
    last = after + 3 * DAY
    # UTC has no clock changes, so there the expression yields the matching wall-clock times.
    matching = {
        instant.replace(tzinfo=None)
        for instant in until(last + 2 * DAY, f"{fields} * * *", "UTC", after - 2 * DAY)
    }
    expected = [i for i, wall in readings(after, last, ZoneInfo(timezone)) if wall in matching]

    assert until(last, f"{fields} * * *", timezone, after) == expected


def test_a_nightly_fire_reports_every_date_of_every_zone_once_after_its_end() -> None:
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


def test_the_night_after_a_skipped_date_reports_the_last_existing_date() -> None:
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
def test_a_fixed_time_job_fires_after_a_gap_and_once_in_a_fold(
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
    ("expression", "timezone"),
    [("* 2 * MAR 7L", "Europe/Berlin"), ("*/30 2 * 3 0#2", "America/New_York")],
)
def test_the_search_ends_after_a_century_if_every_due_time_is_skipped(
    expression: str, timezone: str
) -> None:
    calls = 0

    def count(_frame: FrameType, event: str, function: object) -> None:
        nonlocal calls
        # A loop in C calls CronSim for the next wall-clock time.
        calls += event == "call" and _frame.f_code is CronSim.__next__.__code__

    sys.setprofile(count)
    try:
        due = list(due_times.iter_fires(expression, timezone=timezone, after=utc(2026, 1, 1)))
    finally:
        sys.setprofile(None)

    assert due == []
    assert 100 < calls <= 101 * 60


def make_schedule(*, cron: str, timezone: str) -> Schedule:
    return Schedule(name="daily", cron=cron, timezone=timezone, origin=ScheduleOrigin.SETTINGS)


def test_an_instant_within_the_second_of_a_due_time_is_not_after_a_gap() -> None:
    at = datetime(2026, 3, 2, 9, 0, 0, 500_000, tzinfo=UTC)

    assert not due_times.is_after_gap("0 9 * * *", timezone="UTC", at=at)
