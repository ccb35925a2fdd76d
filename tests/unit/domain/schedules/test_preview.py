"""Previews of upcoming fires mark clock changes."""

from calendar import isleap
from datetime import UTC, datetime

import pytest

from daybook_domain.schedules.preview import ClockChange, UpcomingFire, list_upcoming, search_end

SPRING = datetime(2026, 3, 28, 12, tzinfo=UTC)
"""The day before the clocks of Berlin skip 02:00 to 03:00."""


def preview(after: datetime, expression: str, *, timezone: str, count: int) -> list[UpcomingFire]:
    return list_upcoming(
        expression, timezone=timezone, report_offset_days=-1, after=after, count=count
    )


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 2 * * *", [("29 03:00", ClockChange.GAP), ("30 02:30", None)]),
        # The skipped time fires together with an existing one.
        ("0 2,3 * * *", [("29 03:00", ClockChange.GAP), ("30 02:00", None), ("30 03:00", None)]),
        ("0,30 2,3 * * *", [("29 03:00", ClockChange.GAP), ("29 03:30", None), ("30 02:00", None)]),
        ("0 3 * * *", [("29 03:00", None), ("30 03:00", None)]),
        ("0 1,3 * * *", [("29 01:00", None), ("29 03:00", None)]),
        # A wildcard job does not fire for a skipped time.
        ("0 */3 29 * *", [("29 00:00", None), ("29 03:00", None)]),
        ("*/30 2,3 * * *", [("29 03:00", None), ("29 03:30", None), ("30 02:00", None)]),
    ],
)
def test_a_fire_is_marked_if_a_clock_change_skipped_one_of_its_times(
    expression: str, expected: list[tuple[str, ClockChange | None]]
) -> None:
    found = preview(SPRING, expression, timezone="Europe/Berlin", count=len(expected))

    assert [(f"{fire.local:%d %H:%M}", fire.mark) for fire in found] == expected


def test_a_fire_after_a_skipped_date_is_not_marked() -> None:
    found = preview(
        datetime(2011, 12, 29, tzinfo=UTC), "0 0 * * *", timezone="Pacific/Apia", count=3
    )

    assert [(fire.local.day, fire.mark) for fire in found] == [(29, None), (31, None), (1, None)]


@pytest.mark.parametrize(
    ("year", "expected"),
    [
        (2026, datetime(2126, 1, 2, tzinfo=UTC)),
        (9950, datetime(9999, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_preview_ends_after_a_century_or_with_the_calendar(year: int, expected: datetime) -> None:
    instant = datetime(year, 1, 1, tzinfo=UTC)

    found = preview(instant, "0 0 29 FEB *", timezone="UTC", count=1000)

    assert search_end(instant) == expected
    assert [fire.at.year for fire in found] == [n for n in range(year, expected.year) if isleap(n)]
