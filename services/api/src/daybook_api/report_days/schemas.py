"""Request and response bodies of report days."""

from datetime import date, datetime, timedelta
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from daybook_api.dates import Day
from daybook_domain.reports.models import DayState, ReportDay
from daybook_domain.schedules.lateness import Expectation, is_rebuild_late

DEFAULT_DAYS = 31
MAX_DAYS = 3660


class ReportDayOut(BaseModel):
    """The state of the report of one business day."""

    report_date: date
    state: DayState
    revision: int = Field(
        default=0, description="Revision, which increases whenever a row changes; 0 if absent."
    )
    orders_count: int | None = None
    products_count: int | None = None
    digest: str | None = Field(
        default=None, description="Digest of the rows: equal rows have equal digests."
    )
    data_through: datetime | None = Field(
        default=None, description="The report contains every order committed before this time."
    )
    built_at: datetime | None = Field(default=None, description="Time of the last row change.")
    sealed_at: datetime | None = Field(
        default=None, description="Time of the first build after the end of the day."
    )
    last_run_id: UUID | None = Field(
        default=None, description="Run that created the current revision."
    )
    due_at: datetime | None = Field(
        default=None, description="Time by which the daily schedule should seal the report."
    )
    stale_since: datetime | None = Field(
        default=None,
        description="Time of the first change of an order that the report contains and does not"
        " reflect yet; null if there is none. A rebuild has been requested.",
    )
    late: bool = Field(
        default=False,
        description="True if the report is not sealed `DAYBOOK_LATE_AFTER` seconds after `due_at`,"
        " or not rebuilt `DAYBOOK_LATE_AFTER` seconds after `stale_since`.",
    )

    @classmethod
    def of(cls, day: ReportDay) -> Self:
        """Return the response body for a built day."""
        state = DayState.PROVISIONAL if day.sealed_at is None else DayState.SEALED
        columns = cls.model_fields.keys() - {"state", "due_at", "late"}
        return cls(state=state, **day.model_dump(include=columns))

    def with_lateness(
        self, expectation: Expectation | None, *, late_after: timedelta, now: datetime
    ) -> Self:
        """Return a copy with `late` set, and `due_at` if the date has a due time."""
        late = is_rebuild_late(self.stale_since, late_after=late_after, now=now)
        if expectation is None:
            return self.model_copy(update={"late": late})
        sealed = self.state is DayState.SEALED
        late = late or expectation.is_late(self.report_date, sealed=sealed, now=now)
        due = expectation.due_at(self.report_date)
        return self.model_copy(update={"late": late, "due_at": due})


class ReportDays(BaseModel):
    """A range of days without gaps, oldest first."""

    timezone: str
    days: list[ReportDayOut]


class ReportDaysQuery(BaseModel):
    """The range of days to list."""

    model_config = ConfigDict(extra="forbid")

    first: Day | None = Field(
        default=None,
        alias="from",
        description=f"First date. Default: {DEFAULT_DAYS} days, ending with `to`.",
    )
    last: Day | None = Field(
        default=None, alias="to", description="Last date. Default: the current business day."
    )
