"""Request and response bodies of report days."""

from datetime import date, datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from daybook_api.dates import Day
from daybook_domain.reports.models import DayState, ReportDay
from daybook_domain.schedules.lateness import Expectation

DEFAULT_DAYS = 31


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
