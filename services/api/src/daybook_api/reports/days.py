"""GET /report/days: what is known about the reports of days."""

from datetime import date, datetime, timedelta
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from daybook_api.dates import Day
from daybook_api.deps import App
from daybook_domain import clock
from daybook_domain.errors import Invalid
from daybook_domain.reports import queries
from daybook_domain.reports.models import DayState, ReportDay
from daybook_domain.schedules.lateness import Expectation, expectation

router = APIRouter(prefix="/report/days", tags=["days"])

DEFAULT_DAYS = 31
MOST_DAYS = 3660


class DayOut(BaseModel):
    """What is known about the report of one business day; all but the date null when absent."""

    report_date: date
    state: DayState
    revision: int = Field(default=0, description="Grows whenever a row changed; 0 when absent.")
    orders_count: int | None = None
    products_count: int | None = None
    digest: str | None = Field(default=None, description="The same for the same rows.")
    data_through: datetime | None = Field(
        default=None, description="Every order committed before this instant is in the report."
    )
    built_at: datetime | None = Field(default=None, description="When the rows last changed.")
    sealed_at: datetime | None = Field(
        default=None, description="When it was first built after the day had ended."
    )
    last_run_id: UUID | None = Field(default=None, description="The run that made this revision.")
    due_at: datetime | None = Field(
        default=None, description="When the daily schedule is to have it sealed."
    )
    late: bool = Field(
        default=False, description="Not sealed, `DAYBOOK_LATE_AFTER` seconds after it was due."
    )

    @classmethod
    def of(cls, day: ReportDay) -> Self:
        """Return what is told about a built day."""
        state = DayState.PROVISIONAL if day.sealed_at is None else DayState.SEALED
        told = cls.model_fields.keys() - {"state", "due_at", "late"}
        return cls(state=state, **day.model_dump(include=told))

    def expected(self, expectation: Expectation | None, *, now: datetime) -> Self:
        """Return the same, with when it was due and whether it is late."""
        if expectation is None:
            return self
        sealed = self.state is DayState.SEALED
        late = expectation.is_late(self.report_date, sealed=sealed, now=now)
        due = expectation.due_at(self.report_date)
        return self.model_copy(update={"late": late, "due_at": due})


class Days(BaseModel):
    """Days, oldest first, without gaps."""

    timezone: str
    days: list[DayOut]


class DaysQuery(BaseModel):
    """Which days to list."""

    model_config = ConfigDict(extra="forbid")

    first: Day | None = Field(
        default=None, alias="from", description=f"{DEFAULT_DAYS} days up to `to` when left out."
    )
    last: Day | None = Field(default=None, alias="to", description="Today when left out.")


@router.get("")
async def list_days(query: Annotated[DaysQuery, Query()], app: App) -> Days:
    """List days; one without a report is `absent`, and one to come is not listed."""
    today = await app.today()
    first, last = _range(query, today=today)
    async with app.sessions() as session:
        built = {
            day.report_date: day for day in await queries.days(session, first=first, last=last)
        }
        now = await clock.now(session)
        promised = await expectation(session, timezone=app.timezone, late_after=app.late_after)
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
        promised = await expectation(session, timezone=app.timezone, late_after=app.late_after)
        return found.expected(promised, now=await clock.now(session))


def _range(query: DaysQuery, *, today: date) -> tuple[date, date]:
    last = query.last or max(today, query.first or today)
    first = query.first or last - timedelta(days=DEFAULT_DAYS - 1)
    if first > last:
        raise Invalid(
            f"the range is turned round: `from` ({first}) is after `to` ({last}).", field="from"
        )
    if (last - first).days >= MOST_DAYS:
        raise Invalid(
            f"the range has {(last - first).days + 1} days; expected at most {MOST_DAYS}.",
            field="from",
        )
    return first, last


def _tell(day: date, built: ReportDay | None) -> DayOut:
    if built is None:
        return DayOut(report_date=day, state=DayState.ABSENT)
    return DayOut.of(built)
