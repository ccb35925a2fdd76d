"""Codecs of dates, instants and intervals: exact within Python's range, clamped outside of it."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from daybook_platform.postgres import codecs

_INFINITE_INSTANT, _INFINITE_DATE = 2**63 - 1, 2**31 - 1


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_is_decoded_as_it_was_encoded(value: datetime) -> None:
    assert codecs.decode_instant(codecs.encode_instant(value)) == value


@given(st.dates())
def test_a_date_is_decoded_as_it_was_encoded(value: date) -> None:
    assert codecs.decode_date(codecs.encode_date(value)) == value


@given(st.timedeltas())
def test_an_interval_is_decoded_as_it_was_encoded(value: timedelta) -> None:
    assert codecs.decode_interval(codecs.encode_interval(value)) == value


def test_months_have_30_days_and_years_365_in_both_directions() -> None:
    assert codecs.decode_interval((14, 1, 5)) == timedelta(days=426, microseconds=5)
    assert codecs.decode_interval((-14, 1, 0)) == timedelta(days=-424)


def test_a_value_outside_of_the_calendar_is_the_nearest_one() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    first = datetime.min.replace(tzinfo=UTC)
    assert codecs.decode_instant((_INFINITE_INSTANT,)) == last
    assert codecs.decode_instant((-_INFINITE_INSTANT - 1,)) == first
    assert codecs.decode_date((_INFINITE_DATE,)) == date.max
    assert codecs.decode_date((-_INFINITE_DATE - 1,)) == date.min
    assert codecs.decode_interval((_INFINITE_DATE, 0, 0)) == timedelta.max
    assert codecs.decode_interval((-_INFINITE_DATE, 0, 0)) == timedelta.min
