"""Request and response bodies of schedule fires."""

from datetime import date, datetime
from typing import Annotated, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from daybook_api.dates import Day
from daybook_api.pagination import BeforeCursor
from daybook_api.schedules.schemas import Cron, Offset, Zone
from daybook_domain.runs.models import RunState
from daybook_domain.schedules.preview import ClockChange
from daybook_domain.schedules.queries import FireOutcome, LedgerFire


class SchedulePreviewQuery(BaseModel):
    """The schedule to preview, which need not exist."""

    model_config = ConfigDict(extra="forbid")

    cron: Cron
    timezone: Zone | None = Field(
        default=None, description="IANA time zone name. Default: `DAYBOOK_TIMEZONE`."
    )
    report_offset_days: Offset = -1
    count: Annotated[int, Field(ge=1, le=1000)] = 10
    after: AwareDatetime | None = Field(
        default=None, description="Time after which the fires are due. Default: now."
    )


class UpcomingFireOut(BaseModel):
    """A future fire."""

    at: datetime = Field(description="Due time in UTC.")
    local: datetime = Field(
        description="Due time in the schedule's time zone, with its UTC offset."
    )
    report_date: date
    mark: ClockChange | None = Field(
        description="`gap`: a clock change skips the nominal time, or one of several, and the fire"
        " is due at the first instant after it. `fold`: the nominal time occurs twice on that date,"
        " and the fire is due at the first occurrence."
    )


class SchedulePreview(BaseModel):
    """The next fires of a schedule, with the values they were computed from."""

    cron: str
    timezone: str
    report_offset_days: int
    fires: list[UpcomingFireOut]
    until: datetime = Field(description="End of the search, a century after its start.")


class ScheduleFireOut(BaseModel):
    """A fire of a schedule, with its outcome."""

    scheduled_for: datetime
    local: datetime
    report_date: date
    outcome: FireOutcome
    reason: str | None
    run_id: UUID
    joined_run_id: UUID | None = Field(description="Run that builds the report for this fire.")
    joined_run_state: RunState | None
    available_at: datetime = Field(description="Earliest start time: the due time plus jitter.")
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    error_code: str | None
    error_detail: str | None

    @classmethod
    def of(cls, fire: LedgerFire, *, zone: ZoneInfo) -> Self:
        """Return the response body for a fire."""
        run = fire.run
        assert run.scheduled_for is not None
        return cls(
            **run.model_dump(include=set(cls.model_fields)),
            local=run.scheduled_for.astimezone(zone),
            outcome=fire.outcome,
            run_id=run.id,
            joined_run_state=fire.joined_run_state,
        )


class ScheduleFiresQuery(BaseModel):
    """Filters of the list of fires."""

    model_config = ConfigDict(extra="forbid")

    first: Day | None = Field(
        default=None,
        alias="from",
        description="First date, inclusive, in the schedule's time zone.",
    )
    last: Day | None = Field(
        default=None,
        alias="to",
        description="Last date, inclusive, in the schedule's time zone.",
    )
    outcome: Annotated[
        list[FireOutcome],
        Field(description="Outcomes to include; may be repeated. Default: all."),
    ] = []
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    before: BeforeCursor = None


class ScheduleFires(BaseModel):
    """A page of the fires of a schedule, newest first."""

    fires: list[ScheduleFireOut]
    next: str | None = Field(
        description="Value of `before` for the next page; null on the last page."
    )
    note: str | None = Field(description="The reason why an unfiltered list is empty.")
