"""GET /report/days: what is known about the reports of days."""

from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from daybook_api.dates import Day
from daybook_api.dependencies import App
from daybook_api.report_days.schemas import DEFAULT_DAYS, DayOut, Days, DaysQuery
from daybook_domain import clock
from daybook_domain.errors import Invalid
from daybook_domain.reports import queries
from daybook_domain.reports.models import DayState, ReportDay
from daybook_domain.schedules.lateness import find_expectation

router = APIRouter(prefix="/report/days", tags=["days"])

MAX_DAYS = 3660


@router.get("")
async def list_days(query: Annotated[DaysQuery, Query()], app: App) -> Days:
    """List days; one without a report is `absent`, and one to come is not listed."""
    today = await app.today()
    first, last = _range(query, today=today)
    async with app.sessions() as session:
        built = {
            day.report_date: day for day in await queries.list_days(session, first=first, last=last)
        }
        now = await clock.now(session)
        promised = await find_expectation(session, timezone=app.timezone, late_after=app.late_after)
    dates = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return Days(
        timezone=app.timezone,
        days=[
            _tell(day, built.get(day)).expected(promised, now=now)
            for day in dates
            if day <= today or day in built
        ],
    )


@router.get("/{day}")
async def get_day(day: Day, app: App) -> DayOut:
    """Show a day that has a report."""
    async with app.sessions() as session:
        found = DayOut.of(await queries.get_day(session, day))
        promised = await find_expectation(session, timezone=app.timezone, late_after=app.late_after)
        return found.expected(promised, now=await clock.now(session))


def _range(query: DaysQuery, *, today: date) -> tuple[date, date]:
    last = query.last or max(today, query.first or today)
    first = query.first or last - timedelta(days=DEFAULT_DAYS - 1)
    if first > last:
        raise Invalid(
            f"the range is turned round: `from` ({first}) is after `to` ({last}).", field="from"
        )
    if (last - first).days >= MAX_DAYS:
        raise Invalid(
            f"the range has {(last - first).days + 1} days; expected at most {MAX_DAYS}.",
            field="from",
        )
    return first, last


def _tell(day: date, built: ReportDay | None) -> DayOut:
    if built is None:
        return DayOut(report_date=day, state=DayState.ABSENT)
    return DayOut.of(built)
