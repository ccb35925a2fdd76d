"""GET /report/days: states of the reports of days."""

from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from daybook_api.dates import Day
from daybook_api.dependencies import App
from daybook_api.report_days.schemas import (
    DEFAULT_DAYS,
    MAX_DAYS,
    ReportDayOut,
    ReportDays,
    ReportDaysQuery,
)
from daybook_domain import clock
from daybook_domain.errors import Invalid
from daybook_domain.reports import queries
from daybook_domain.reports.models import DayState, ReportDay
from daybook_domain.schedules.lateness import find_expectation

router = APIRouter(prefix="/report/days", tags=["days"])


@router.get("")
async def list_report_days(query: Annotated[ReportDaysQuery, Query()], app: App) -> ReportDays:
    """List the days of a range up to the current one; a day without a report is `absent`."""
    today = await app.today()
    first, last = _range(query, today=today)
    async with app.sessions() as session:
        built = {
            day.report_date: day for day in await queries.list_days(session, first=first, last=last)
        }
        now = await clock.now(session)
        expectation = await find_expectation(
            session, timezone=app.timezone, late_after=app.late_after
        )
    dates = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return ReportDays(
        timezone=app.timezone,
        days=[
            _day_out(day, built.get(day)).with_lateness(
                expectation, late_after=app.late_after, now=now
            )
            for day in dates
            if day <= today or day in built
        ],
    )


@router.get("/{day}")
async def get_report_day(day: Day, app: App) -> ReportDayOut:
    """Get the state of the report of one day; a day without a report is `absent`."""
    async with app.sessions() as session:
        found = _day_out(day, await queries.find_day(session, day))
        expectation = await find_expectation(
            session, timezone=app.timezone, late_after=app.late_after
        )
        return found.with_lateness(
            expectation, late_after=app.late_after, now=await clock.now(session)
        )


def _range(query: ReportDaysQuery, *, today: date) -> tuple[date, date]:
    last = query.last or max(today, query.first or today)
    first = query.first or last - timedelta(days=DEFAULT_DAYS - 1)
    if first > last:
        raise Invalid(f"`from` ({first}) is after `to` ({last}).", field="from")
    if (last - first).days >= MAX_DAYS:
        raise Invalid(
            f"the range has {(last - first).days + 1} days; expected at most {MAX_DAYS}.",
            field="from",
        )
    return first, last


def _day_out(day: date, built: ReportDay | None) -> ReportDayOut:
    if built is None:
        return ReportDayOut(report_date=day, state=DayState.ABSENT)
    return ReportDayOut.of(built)
