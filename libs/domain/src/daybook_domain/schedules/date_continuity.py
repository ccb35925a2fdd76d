"""Changes of the settings' schedule that leave no date without a fire.

A new cron or zone could report the next date at a time that has already passed: `0 2` becomes
`0 1` at 01:30, or the zone moves east in the afternoon. Such dates are reported late rather than
never.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfoNotFoundError

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.errors import Invalid
from daybook_domain.reports.business_day import first_instant
from daybook_domain.runs import fire_ledger
from daybook_domain.runs.models import ReportRun
from daybook_domain.schedules import definition_writes
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.definitions import ScheduleDefinition
from daybook_domain.schedules.fire_planning import get_report_date, plan_fire
from daybook_domain.schedules.materialization import materialize_one
from daybook_domain.schedules.models import Schedule

_TICK = timedelta(microseconds=1)


async def redefine_without_gap(
    session: AsyncSession, schedule: Schedule, definition: ScheduleDefinition, *, now: datetime
) -> None:
    """Replace the definition of a schedule that the caller has locked.

    Of the dates that the old definition has not reported yet, those whose new due time has passed
    are due at once.
    """
    before = ScheduleDefinition.of(schedule).firing_key
    next_date = await _find_next_date(session, schedule, now=now)
    await definition_writes.redefine(session, schedule, definition, now=now)
    if definition.firing_key == before or next_date is None:
        return
    passed = list(_iter_passed(schedule, first=next_date, now=now))
    last_at = schedule.last_fire_at
    # A recorded fire must not be due again, and the ledger is in order: a due time that is not
    # after the last fire is not one of the new definition. Its date is recorded by itself.
    await _record_dates(
        session, schedule, [at for at in passed if last_at is not None and at <= last_at], now=now
    )
    due = next((at for at in passed if last_at is None or at > last_at), None)
    if due is not None:
        schedule.next_fire_at = due
        schedule.defined_at = due - _TICK
        await session.flush()


async def _find_next_date(
    session: AsyncSession, schedule: Schedule, *, now: datetime
) -> date | None:
    """Return the date that the current definition reports next, or None if there is no such."""
    with suppress(Invalid, ZoneInfoNotFoundError):
        await materialize_one(session, schedule, now=now)
        if schedule.next_fire_at is not None:
            return get_report_date(schedule, schedule.next_fire_at)
    return None


def _iter_passed(schedule: Schedule, *, first: date, now: datetime) -> Iterator[datetime]:
    """Yield the due times until `now` that report `first` or a later date, in order."""
    start = first_instant(
        first + timedelta(days=-1 - schedule.report_offset_days), timezone=schedule.timezone
    )
    for at in due_times.iter_fires(schedule.cron, timezone=schedule.timezone, after=start - _TICK):
        if at > now:
            return
        if get_report_date(schedule, at) >= first:
            yield at


async def _record_dates(
    session: AsyncSession, schedule: Schedule, due: Sequence[datetime], *, now: datetime
) -> None:
    """Record a fire for each date of the due times that has none."""
    if not due:
        return
    by_date: dict[date, datetime] = {}
    for at in due:
        by_date.setdefault(get_report_date(schedule, at), at)
    ledger = select(col(ReportRun.report_date), col(ReportRun.scheduled_for)).where(
        ReportRun.schedule_id == schedule.id,
        col(ReportRun.scheduled_for) >= min(due) - timedelta(days=2),
    )
    recorded = (await session.exec(ledger)).all()
    dates, instants = {day for day, _ in recorded}, {at for _, at in recorded}
    fires = []
    for day, at in by_date.items():
        if day in dates:
            continue
        nominal = at
        while nominal in instants:
            nominal += _TICK
        instants.add(nominal)
        fire = plan_fire(schedule, at, following=None, now=now)
        fires.append(replace(fire, scheduled_for=nominal, available_at=now))
    await fire_ledger.record(session, fires, now=now)
