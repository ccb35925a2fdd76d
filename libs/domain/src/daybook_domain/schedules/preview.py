"""Previews of upcoming fires, with their report dates and clock changes."""

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
    """How a clock change affects a fire."""

    GAP = "gap"
    """The clock change skipped one of its times; it fires at the first instant after the gap."""
    FOLD = "fold"
    """Its wall-clock time occurs twice on that day."""


@dataclass(frozen=True)
class UpcomingFire:
    """An upcoming fire."""

    at: datetime
    local: datetime
    report_date: date
    mark: ClockChange | None


def list_upcoming(
    expression: str, *, timezone: str, report_offset_days: int, after: datetime, count: int
) -> list[UpcomingFire]:
    """Return the next `count` fires strictly after `after`, or fewer if `search_end` comes first.

    Raises `Invalid` if `after` is outside the calendar.
    """
    if not FIRST_DATE <= after.date() <= LAST_DATE:
        raise Invalid(f"{after.date()} is outside {FIRST_DATE} to {LAST_DATE}.", field="after")
    last = search_end(after)
    upcoming = _iter_upcoming(expression, timezone, report_offset_days, after)
    return list(islice(takewhile(lambda fire: fire.at <= last, upcoming), count))


def search_end(after: datetime) -> datetime:
    """Return the end of a preview: a thousand fires of a rare schedule could span millennia."""
    end = datetime.combine(LAST_DATE, time.min, tzinfo=UTC) + timedelta(days=1)
    return (
        end
        if end - after < due_times.SEARCH_LIMIT
        else after.astimezone(UTC) + due_times.SEARCH_LIMIT
    )


def _iter_upcoming(
    expression: str, timezone: str, offset_days: int, after: datetime
) -> Iterator[UpcomingFire]:
    zone = get_zone(timezone)
    for at in due_times.iter_fires(expression, timezone=timezone, after=after):
        local = at.astimezone(zone)
        yield UpcomingFire(
            at=at,
            local=local,
            report_date=shift_date(local.date(), days=offset_days, timezone=timezone),
            mark=_find_clock_change(expression, at, timezone),
        )


def _find_clock_change(expression: str, at: datetime, timezone: str) -> ClockChange | None:
    zone = get_zone(timezone)
    wall = wall_time(at, zone=zone)
    offsets = {wall.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)}
    if len(offsets) > 1:
        return ClockChange.FOLD
    return ClockChange.GAP if due_times.is_after_gap(expression, timezone=timezone, at=at) else None
