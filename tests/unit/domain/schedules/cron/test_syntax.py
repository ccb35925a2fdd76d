"""Syntax of cron expressions: aliases, equivalent spellings, error messages."""

import contextlib
from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.errors import InvalidCron


def utc(*args: int) -> datetime:
    return datetime(*args, tzinfo=UTC)  # type: ignore[misc,arg-type]


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
def test_an_alias_fires_at_its_period(alias: str, expected: datetime) -> None:
    assert due_times.next_fire(alias, timezone="UTC", after=utc(2024, 5, 1, 10, 7)) == expected


@pytest.mark.parametrize(
    ("expression", "equivalent"),
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
def test_equivalent_spellings_have_the_same_due_times(expression: str, equivalent: str) -> None:
    after = utc(2024, 5, 1)
    fires, expected = (
        due_times.iter_fires(e, timezone="UTC", after=after) for e in (expression, equivalent)
    )

    assert list(islice(fires, 10)) == list(islice(expected, 10))
    assert due_times.validate(expression) == expression


@pytest.mark.parametrize(
    "expression",
    [
        *("0 0 1-1/2-3 * *", "0 0 1-1/2/2 * *", "0-0/1/1 * * * *", "0 5-5/2-5/2 * * *"),
        *("0 0 * * 0-0/5#2", "0 0 * * MON-MON/2#1", "0 0 * * 5-5/2L", "0 0 * * 5L-5L/2"),
        *("0 0 L-L/2 * *", "0 0 LW-LW/3 * *", "5-5/0 * * * *", "0 0 ?,? * *", "0 0 ?/2 * *"),
    ],
)
def test_a_spelling_that_only_resembles_a_valid_one_is_rejected(expression: str) -> None:
    with pytest.raises(InvalidCron, match=r"\(position \d+\)"):
        due_times.validate(expression)


@pytest.mark.parametrize(
    "expression",
    ["0 0 * * *", "@daily", "*/5 9-17 * * MON-FRI", "0\t0 29 2 *", "0 0 L * *", "0 0 * * 5#3"],
)
def test_a_valid_expression_is_returned(expression: str) -> None:
    assert due_times.validate(expression) == expression


@pytest.mark.parametrize(
    ("expression", "problem"),
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
        ("0\n0 * * *  *", r"U\+000A is not a space \(position 2\)"),
        ("0 0\xa0* * * *", r"U\+00A0 is not a space \(position 4\)"),
        ("0 0 * * *\x00", r"U\+0000 is not a space \(position 10\)"),
        ("5-1 * * * *", r"minute: the range 5-1 runs backwards"),
        ("-1 * * * *", r"minute: -1 is not 0-59"),
        ("1,,2 * * * *", r"minute: an item of the list is empty \(position 3\)"),
        ("0 0 30 2 *", r"day-of-month: none of the months has a day 30 \(position 5\)"),
        ("0 0 31 APR,JUN *", r"day-of-month: none of the months has a day 31 \(position 5\)"),
        ("0 0 1 2 *" + " " * 200, "at most 200"),
    ],
)
def test_a_malformed_expression_is_rejected_with_the_reason(expression: str, problem: str) -> None:
    with pytest.raises(InvalidCron, match=problem) as rejected:
        due_times.validate(expression)

    assert rejected.value.field == "cron"


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
def test_any_text_is_either_valid_or_rejected(text: str) -> None:
    with contextlib.suppress(InvalidCron):
        assert due_times.validate(text) == text
