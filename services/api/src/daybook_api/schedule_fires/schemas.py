"""Request and response bodies of schedule fires."""

from datetime import date, datetime
from typing import Annotated, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from daybook_api.dates import Day
from daybook_api.pagination import Before
from daybook_api.schedules.schemas import Cron, Offset, Zone
from daybook_domain.runs.models import RunState
from daybook_domain.schedules.preview import ClockChange
from daybook_domain.schedules.queries import FireOutcome, LedgerFire


class PreviewQuery(BaseModel):
    """A schedule that need not exist."""

    model_config = ConfigDict(extra="forbid")

    cron: Cron
    timezone: Zone | None = Field(default=None, description="`DAYBOOK_TIMEZONE` when left out.")
    report_offset_days: Offset = -1
    count: Annotated[int, Field(ge=1, le=1000)] = 10
    after: AwareDatetime | None = Field(default=None, description="Now when left out.")


class UpcomingOut(BaseModel):
    """A fire to come."""

    at: datetime = Field(description="In UTC.")
    local: datetime = Field(description="What the clock on the wall shows, with its offset.")
    report_date: date
    mark: ClockChange | None = Field(
        description="`gap`: the clocks jump over its time, or one of several, and it fires at the"
        " first instant after; `fold`: its time comes twice on that day."
    )


class Preview(BaseModel):
    """The next fires, and what they were computed from."""

    cron: str
    timezone: str
    report_offset_days: int
    fires: list[UpcomingOut]
    until: datetime = Field(description="How far ahead was looked, at most: a century.")


class FireOut(BaseModel):
    """One due time of a schedule, and what became of it."""

    scheduled_for: datetime
    local: datetime
    report_date: date
    outcome: FireOutcome
    reason: str | None
    run_id: UUID
    joined_run_id: UUID | None = Field(description="The run that does the work of this fire.")
    joined_run_state: RunState | None
    available_at: datetime = Field(description="Not worked on before: the due time, with jitter.")
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    error_code: str | None
    error_detail: str | None

    @classmethod
    def of(cls, fire: LedgerFire, *, zone: ZoneInfo) -> Self:
        """Return what is told about a fire."""
        run = fire.run
        assert run.scheduled_for is not None
        return cls(
            **run.model_dump(include=set(cls.model_fields)),
            local=run.scheduled_for.astimezone(zone),
            outcome=fire.outcome,
            run_id=run.id,
            joined_run_state=fire.joined_run_state,
        )


class FiresQuery(BaseModel):
    """Which fires to list."""

    model_config = ConfigDict(extra="forbid")

    first: Day | None = Field(
        default=None, alias="from", description="In the schedule's zone, included."
    )
    last: Day | None = Field(
        default=None, alias="to", description="In the schedule's zone, included."
    )
    outcome: Annotated[list[FireOutcome], Field(description="One or more.")] = []
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    before: Before = None


class Fires(BaseModel):
    """A page of the ledger of one schedule, newest first."""

    fires: list[FireOut]
    next: str | None = Field(description="What to send as `before` for the next page, if any.")
    note: str | None = Field(description="Where nothing was filtered out: why there is none.")
