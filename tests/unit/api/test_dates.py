"""Unit tests of dates in requests."""

from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from daybook_api.dates import Day

DAY: TypeAdapter[date] = TypeAdapter(Day)


@given(st.dates(date(1970, 1, 1), date(9998, 12, 31)))
def test_every_date_is_accepted_in_iso_format(day: date) -> None:
    assert DAY.validate_python(day.isoformat()) == day


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "20260301", "2026-3-1", "2026-03-01T00:00", "2026-W09-7", " 2026-03-01"),
        *("2026-03-01\n", "2026-02-30", "1969-12-31", "9999-01-01", "yesterday"),
        "\u0662\u0660\u0662\u0666-03-01",  # digits, but not ASCII
        *(0, 1.5, True, None),
    ],
)
def test_any_other_value_is_rejected_with_the_expected_format(value: object) -> None:
    with pytest.raises(ValidationError, match="expected"):
        DAY.validate_python(value)


@given(st.text(st.characters(), max_size=50))
@example("\ud800")
def test_a_text_that_is_not_a_date_is_reported_and_does_not_raise_another_error(text: str) -> None:
    with pytest.raises(ValidationError, match=r"calendar date|is empty"):
        DAY.validate_python(text)
