"""When would a schedule fire next, about which dates, and where do the clocks play a part? Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import islice, takewhile

from daybook_domain.errors import Invalid
from daybook_domain.reports.business_day import (
    FIRST_DATE,
    LAST_DATE,
    get_zone,
    shift_date,
    wall_time,
)
from daybook_domain.schedules.cron import due_times


class ClockChange(StrEnum):
    """What the change of clocks has to do with a fire."""

    GAP = "gap"
    """The clocks jumped over a time of it; it fires at the first instant after."""
    FOLD = "fold"
    """Its time comes twice on that day."""


@dataclass(frozen=True)
class UpcomingFire:
    """One fire to come."""

    at: datetime
    local: datetime
    report_date: date
    mark: ClockChange | None


def list_upcoming(
    expression: str, *, timezone: str, report_offset_days: int, after: datetime, count: int
) -> list[UpcomingFire]:
    """Return the next `count` fires strictly after `after`; fewer where `horizon` comes before.

    Raises `Invalid` where `after` is outside the calendar.
    """
    if not FIRST_DATE <= after.date() <= LAST_DATE:
        raise Invalid(f"{after.date()} is outside {FIRST_DATE} to {LAST_DATE}.", field="after")
    last = search_end(after)
    found = _upcoming(expression, timezone, report_offset_days, after)
    return list(islice(takewhile(lambda fire: fire.at <= last, found), count))


def search_end(after: datetime) -> datetime:
    """Return how far a preview looks: to the thousandth of a rare fire it could be millennia."""
    end = datetime.combine(LAST_DATE, time.min, tzinfo=UTC) + timedelta(days=1)
    return (
        end
        if end - after < due_times.SEARCH_LIMIT
        else after.astimezone(UTC) + due_times.SEARCH_LIMIT
    )


def _upcoming(
    expression: str, timezone: str, offset_days: int, after: datetime
) -> Iterator[UpcomingFire]:
    zone = get_zone(timezone)
    for at in due_times.iter_fires(expression, timezone=timezone, after=after):
        local = at.astimezone(zone)
        yield UpcomingFire(
            at=at,
            local=local,
            report_date=shift_date(local.date(), days=offset_days, timezone=timezone),
            mark=_mark(expression, at, timezone),
        )


def _mark(expression: str, at: datetime, timezone: str) -> ClockChange | None:
    zone = get_zone(timezone)
    wall = wall_time(at, zone=zone)
    offsets = {wall.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)}
    if len(offsets) > 1:
        return ClockChange.FOLD
    return ClockChange.GAP if due_times.is_after_gap(expression, timezone=timezone, at=at) else None
