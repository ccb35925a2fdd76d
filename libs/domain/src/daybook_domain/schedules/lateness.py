"""Late reports, computed from data so that any service detects them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.errors import Invalid
from daybook_domain.reports.business_day import (
    FIRST_DATE,
    LAST_DATE,
    business_day,
    first_instant,
    local_date,
    shift_date,
)
from daybook_domain.reports.models import ReportDay
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.models import Schedule, ScheduleOrigin

MAX_LOOKBACK_DAYS = 366
"""Number of past days that are checked for late reports."""


@dataclass(frozen=True)
class LateDay:
    """A business day whose report is not sealed, or stale, although a build of it was due."""

    report_date: date
    due_at: datetime


def is_rebuild_late(stale_since: datetime | None, *, late_after: timedelta, now: datetime) -> bool:
    """Return whether the report should have been rebuilt by `now`; due when it became stale."""
    return stale_since is not None and now >= stale_since + late_after


@dataclass(frozen=True)
class Expectation:
    """When the reports of the daily schedule are due: from which day on, and by when each.

    `timezone` is that of business days. A pause of the schedule changes nothing.
    """

    daily: Schedule
    first_day: date
    timezone: str
    late_after: timedelta

    def due_at(self, day: date) -> datetime | None:
        """Return when the report of `day` is due: at the first fire for that day after its end.

        None if no such fire exists, or if it precedes the first order or the schedule.
        """
        if day < self.first_day:
            return None
        try:
            due = self._first_fire(day)
        except (Invalid, OverflowError, ValueError):
            # The error is recorded on the schedule.
            return None
        return due if due is not None and due > self.daily.created_at else None

    def _first_fire(self, day: date) -> datetime | None:
        ends_at = business_day(day, timezone=self.timezone).ends_at
        zone, offset = self.daily.timezone, self.daily.report_offset_days
        fires_on = shift_date(day, days=-offset, timezone=zone)
        starts, ends = (first_instant(fires_on + timedelta(days=k), timezone=zone) for k in (0, 1))
        after = max(starts, ends_at) - timedelta(microseconds=1)
        due = due_times.next_fire(self.daily.cron, timezone=zone, after=after)
        return due if due is not None and due < ends else None

    def is_late(self, day: date, *, sealed: bool, now: datetime) -> bool:
        """Return whether the report of `day` should have been sealed by `now`."""
        if sealed or now < business_day(day, timezone=self.timezone).ends_at + self.late_after:
            return False
        due = self.due_at(day)
        return due is not None and now >= due + self.late_after


async def find_expectation(
    session: AsyncSession, *, timezone: str, late_after: timedelta
) -> Expectation | None:
    """Return the expectation; None before the first order, or without a daily schedule."""
    daily = select(Schedule).where(
        Schedule.origin == ScheduleOrigin.SETTINGS, col(Schedule.deleted_at).is_(None)
    )
    schedule = (await session.exec(daily)).first()
    # Orders outside of the calendar of business days are in no report.
    first = (await session.execute(_FIRST_ORDER, {"first": FIRST_DATE, "last": LAST_DATE})).scalar()
    if schedule is None or first is None:
        return None
    return Expectation(
        daily=schedule,
        first_day=local_date(first, timezone=timezone),
        timezone=timezone,
        late_after=late_after,
    )


# A margin of two days, because the date of an instant depends on the zone.
_FIRST_ORDER = text(
    "SELECT min(created_at) FROM orders WHERE created_at >= CAST(:first AS date) + 2"
    " AND created_at < CAST(:last AS date) - 2"
)


async def list_late_days(
    session: AsyncSession, *, timezone: str, late_after: timedelta, now: datetime
) -> Sequence[LateDay]:
    """Return the days whose report is late, by when it was due.

    These are days of the last year that are not sealed, and stale days of any age.
    """
    due_at = {
        day.report_date: day.due_at
        for day in (
            *await _list_stale_days(session, late_after=late_after, now=now),
            *await _list_unsealed_days(session, timezone=timezone, late_after=late_after, now=now),
        )
    }
    return [LateDay(day, due) for day, due in sorted(due_at.items(), key=lambda item: item[::-1])]


async def _list_stale_days(
    session: AsyncSession, *, late_after: timedelta, now: datetime
) -> Sequence[LateDay]:
    stale = select(ReportDay).where(col(ReportDay.stale_since).is_not(None))
    return [
        LateDay(day.report_date, day.stale_since)
        for day in (await session.exec(stale)).all()
        if day.stale_since is not None
        and is_rebuild_late(day.stale_since, late_after=late_after, now=now)
    ]


async def _list_unsealed_days(
    session: AsyncSession, *, timezone: str, late_after: timedelta, now: datetime
) -> Sequence[LateDay]:
    expected = await find_expectation(session, timezone=timezone, late_after=late_after)
    if expected is None:
        return []
    today = local_date(now, timezone=timezone)
    first = max(expected.first_day, today - timedelta(days=MAX_LOOKBACK_DAYS))
    sealed = select(col(ReportDay.report_date)).where(
        ReportDay.report_date >= first, col(ReportDay.sealed_at).is_not(None)
    )
    sealed_days = set((await session.exec(sealed)).all())
    late = list[LateDay]()
    for days in range((today - first).days):
        day = first + timedelta(days=days)
        if expected.is_late(day, sealed=day in sealed_days, now=now):
            due = expected.due_at(day)
            assert due is not None
            late.append(LateDay(day, due))
    return late
