"""Business days in every zone, compared with the local time of each minute."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daybook_domain.errors import Invalid
from daybook_domain.reports.business_day import (
    BusinessDay,
    business_day,
    first_instant,
    local_date,
    shift_date,
)
from tests.support.clock import distinct_zones

ZONES = sorted(available_timezones() - {"localtime"})
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)

zones = st.sampled_from(ZONES)
dates = st.dates(min_value=date(1971, 1, 1), max_value=date(2100, 12, 31))


def wall(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None)


def midnight_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)  # noqa: DTZ001 # a wall time


def offsets_around(day: date, zone: ZoneInfo) -> set[timedelta]:
    """Return the UTC offsets at the instants that can be the midnight of `day`."""
    noon = midnight_of(day).replace(tzinfo=UTC)
    samples = (noon + hours * timedelta(hours=1) for hours in (-16, -8, 0, 8, 16))
    return {instant.astimezone(zone).utcoffset() or timedelta(0) for instant in samples}


def oracle(day: date, zone: ZoneInfo) -> datetime:
    """Return the first minute whose local time is `day` 00:00 or later, by testing each."""
    midnight = midnight_of(day)
    offsets = offsets_around(day, zone)
    instant = midnight.replace(tzinfo=UTC) - max(offsets) - MINUTE
    while wall(instant, zone) < midnight:
        instant += MINUTE
    return instant


def test_the_first_instant_of_a_day_equals_the_oracle_in_every_zone() -> None:
    first, last = date(2024, 1, 1), date(2025, 12, 31)
    wrong = []
    for name in distinct_zones(first, last):
        zone = ZoneInfo(name)
        for day in (first + DAY * k for k in range((last - first).days + 1)):
            if len(offsets_around(day, zone)) == 1 and day.day > 1:
                continue  # Days without a clock change: one of each month is enough.
            if first_instant(day, timezone=name) != oracle(day, zone):
                wrong.append((name, day))
    assert wrong == []


@pytest.mark.parametrize(
    ("timezone", "day", "starts_at"),
    [
        # The clocks skip midnight: the day starts at 01:00.
        ("Africa/Cairo", date(2024, 4, 26), datetime(2024, 4, 25, 22, tzinfo=UTC)),
        ("Asia/Beirut", date(2024, 3, 31), datetime(2024, 3, 30, 22, tzinfo=UTC)),
        ("America/Santiago", date(2024, 9, 8), datetime(2024, 9, 8, 4, tzinfo=UTC)),
        # Midnight occurs twice: the day starts at the first.
        ("America/Havana", date(2024, 11, 3), datetime(2024, 11, 3, 4, tzinfo=UTC)),
        # At 00:01 the clocks went back to 23:01 of the day before.
        ("America/St_Johns", date(2010, 11, 7), datetime(2010, 11, 7, 2, 30, tzinfo=UTC)),
        ("Pacific/Apia", date(2011, 12, 30), datetime(2011, 12, 30, 10, tzinfo=UTC)),
        ("Pacific/Apia", date(2011, 12, 31), datetime(2011, 12, 30, 10, tzinfo=UTC)),
        ("UTC", date(2024, 2, 29), datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
def test_a_day_starts_at_its_first_instant_when_midnight_is_skipped_or_repeated(
    timezone: str, day: date, starts_at: datetime
) -> None:
    found = business_day(day, timezone=timezone)

    assert found.starts_at == starts_at
    assert found.starts_at == oracle(day, ZoneInfo(timezone))


def test_a_date_that_a_zone_skipped_is_an_empty_day() -> None:
    day = business_day(date(2011, 12, 30), timezone="Pacific/Apia")

    assert day.starts_at == day.ends_at


@pytest.mark.parametrize(
    ("timezone", "day", "hours"),
    [
        ("Europe/Berlin", date(2024, 3, 31), 23),
        ("Europe/Berlin", date(2024, 10, 27), 25),
        ("Australia/Lord_Howe", date(2024, 10, 6), 23.5),
        ("Australia/Lord_Howe", date(2024, 4, 7), 24.5),
        ("Asia/Kolkata", date(2024, 10, 27), 24),
    ],
)
def test_a_day_with_a_clock_change_is_shorter_or_longer(
    timezone: str, day: date, hours: float
) -> None:
    found = business_day(day, timezone=timezone)

    assert found.ends_at - found.starts_at == timedelta(hours=hours)


@given(zones, dates)
@example("Pacific/Apia", date(2011, 12, 29))
@example("America/St_Johns", date(2010, 11, 6))
def test_consecutive_days_have_no_gap_and_no_overlap(timezone: str, day: date) -> None:
    current, following = (business_day(d, timezone=timezone) for d in (day, day + DAY))

    assert current.starts_at <= current.ends_at == following.starts_at


@given(zones, st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_every_instant_is_in_exactly_one_day(timezone: str, instant: datetime) -> None:
    around = local_date(instant, timezone=timezone)
    days = [business_day(around + DAY * k, timezone=timezone) for k in range(-2, 3)]

    assert sum(day.starts_at <= instant < day.ends_at for day in days) == 1


def test_a_day_has_ended_at_its_end() -> None:
    day = business_day(date(2024, 5, 1), timezone="UTC")

    assert not day.has_ended(now=day.ends_at - timedelta(microseconds=1))
    assert day.has_ended(now=day.ends_at)


@pytest.mark.parametrize("day", [date.min, date(1969, 12, 31), date(9999, 1, 1), date.max])
def test_dates_out_of_range_are_refused(day: date) -> None:
    with pytest.raises(Invalid, match="out of range; expected 1970-01-01 to 9998-12-31") as caught:
        business_day(day, timezone="Pacific/Kiritimati")

    assert caught.value.field == "date"


@pytest.mark.parametrize("timezone", ["Pacific/Kiritimati", "Etc/GMT+12", "UTC"])
@pytest.mark.parametrize("day", [date(1970, 1, 1), date(9998, 12, 31)])
def test_the_first_and_the_last_date_have_a_day(timezone: str, day: date) -> None:
    assert isinstance(business_day(day, timezone=timezone), BusinessDay)


@pytest.mark.parametrize(
    ("day", "days", "expected"),
    [
        (date(2011, 12, 31), -1, date(2011, 12, 29)),
        (date(2011, 12, 29), 1, date(2011, 12, 31)),
        (date(2012, 1, 1), -2, date(2011, 12, 29)),
        (date(2012, 1, 1), 0, date(2012, 1, 1)),
        (date(2024, 3, 1), -1, date(2024, 2, 29)),
    ],
)
def test_a_skipped_date_does_not_count_in_a_shift(day: date, days: int, expected: date) -> None:
    assert shift_date(day, days=days, timezone="Pacific/Apia") == expected
