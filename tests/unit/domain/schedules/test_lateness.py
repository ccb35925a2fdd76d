"""Due times and lateness of reports."""

from datetime import UTC, date, datetime, timedelta

import pytest

from daybook_domain.schedules.lateness import Expectation
from daybook_domain.schedules.models import Schedule, ScheduleOrigin

DAY = date(2026, 3, 10)
QUARTER = timedelta(minutes=15)


def at(*args: int) -> datetime:
    return datetime(*args, tzinfo=UTC)  # type: ignore[misc,arg-type]


def expectation(
    *,
    cron: str = "0 0 * * *",
    timezone: str = "UTC",
    created_at: datetime = at(2026, 1, 1),  # noqa: B008 # immutable
    first_day: date = date(2026, 1, 1),
) -> Expectation:
    daily = Schedule(
        name="daily",
        cron=cron,
        timezone=timezone,
        origin=ScheduleOrigin.SETTINGS,
        created_at=created_at,
    )
    return Expectation(daily, first_day, timezone, QUARTER)


@pytest.mark.parametrize(
    ("cron", "timezone", "due"),
    [
        ("0 0 * * *", "UTC", at(2026, 3, 11)),
        ("30 3 * * *", "UTC", at(2026, 3, 11, 3, 30)),
        ("0 12,18 * * *", "UTC", at(2026, 3, 11, 12)),
        ("* * * * *", "UTC", at(2026, 3, 11)),
        ("0 0 * * *", "Asia/Tokyo", at(2026, 3, 10, 15)),
        # The 11th is a Wednesday: fires on other weekdays report other dates.
        ("0 6 * * WED", "UTC", at(2026, 3, 11, 6)),
        ("0 6 * * MON", "UTC", None),
        ("nonsense", "UTC", None),
        ("0 0 * * *", "Mars/Olympus", None),
    ],
)
def test_a_day_is_due_at_the_first_fire_that_reports_it_after_its_end(
    cron: str, timezone: str, due: datetime | None
) -> None:
    if timezone == "Mars/Olympus":
        broken = expectation(timezone=timezone)
        expected = Expectation(broken.daily, broken.first_day, "UTC", QUARTER)
    else:
        expected = expectation(cron=cron, timezone=timezone)

    assert expected.due_at(DAY) == due


def test_a_day_is_not_due_before_it_ends_in_the_zone_of_business_days() -> None:
    # Midnight of the schedule's zone is at 15:00 UTC, nine hours before the business day ends.
    tokyo = expectation(cron="0 0,12 * * *", timezone="Asia/Tokyo")
    expected = Expectation(tokyo.daily, tokyo.first_day, "UTC", QUARTER)

    assert expected.due_at(DAY) == at(2026, 3, 11, 3)


def test_an_unsealed_day_is_late_after_the_due_time_and_the_tolerance() -> None:
    expected, due = expectation(cron="0 3 * * *"), at(2026, 3, 11, 3)

    assert not expected.is_late(DAY, sealed=False, now=due + QUARTER - timedelta(seconds=1))
    assert expected.is_late(DAY, sealed=False, now=due + QUARTER)
    assert not expected.is_late(DAY, sealed=True, now=due + timedelta(days=30))


def test_a_day_due_before_the_schedule_or_the_first_order_is_never_late() -> None:
    long_after = at(2027, 1, 1)
    new = expectation(created_at=at(2026, 3, 11, 0, 1))
    empty = expectation(first_day=date(2026, 3, 11))

    for expected in (new, empty):
        assert expected.due_at(DAY) is None
        assert not expected.is_late(DAY, sealed=False, now=long_after)
        assert expected.is_late(DAY + timedelta(days=1), sealed=False, now=long_after)
