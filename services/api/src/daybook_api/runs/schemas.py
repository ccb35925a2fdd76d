"""Request and response bodies of runs."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from daybook_api.dates import Day
from daybook_api.pagination import Before, uuid_of
from daybook_domain.backfills.models import BackfillMode
from daybook_domain.backfills.service import DEFAULT_CONCURRENCY, MAX_CONCURRENCY, BackfillRange
from daybook_domain.errors import Invalid
from daybook_domain.reports.business_day import FIRST_DATE
from daybook_domain.runs.models import RunState, RunTrigger, SkipCause
from daybook_domain.validation import Storable

Reason = Annotated[Annotated[str, Storable] | None, Field(max_length=500)]


class RunIn(BaseModel):
    """Which report to build: of one `date`, or of each date `from` … `to`."""

    model_config = ConfigDict(extra="forbid")

    date: Day = FIRST_DATE
    first: Day = Field(default=FIRST_DATE, alias="from")
    last: Day = Field(default=FIRST_DATE, alias="to", description="Included; up to today.")
    mode: BackfillMode = Field(
        default=BackfillMode.ABSENT,
        description="Of a range: the dates without a sealed report, those whose latest run failed,"
        " or all.",
    )
    concurrency: Annotated[
        int, Field(ge=1, le=MAX_CONCURRENCY, description="Of a range: so many dates at once.")
    ] = DEFAULT_CONCURRENCY
    dry_run: bool = Field(
        default=False, description="Of a range: only tell what would become of each date."
    )
    reason: Reason = None

    @property
    def range(self) -> BackfillRange | None:
        """The range that is asked for; None: a single date. Raises `Invalid`."""
        given = self.model_fields_set - {"reason"}
        if "date" in given and len(given) > 1:
            other = sorted(given - {"date"})[0]
            raise Invalid(
                "goes with a range: expected either `date`, or `from` and `to`",
                field={"first": "from", "last": "to"}.get(other, other),
            )
        if "date" in given:
            return None
        for name, field in (("first", "from"), ("last", "to")):
            if given and name not in given:
                raise Invalid("is required: a range has `from` and `to`", field=field)
        if not given:
            raise Invalid("is required; or `from` and `to`, for a range", field="date")
        return BackfillRange(first=self.first, last=self.last, mode=self.mode)


class RunOut(BaseModel):
    """A unit of work that builds the report of one date."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    report_date: date
    trigger: RunTrigger
    state: RunState
    cause: SkipCause | None = Field(description="Why it was skipped or missed.")
    reason: str | None
    schedule_id: int | None
    backfill_id: UUID | None
    scheduled_for: datetime | None
    joined_run_id: UUID | None = Field(description="The run that does the work of this one.")
    attempt: int
    max_attempts: int
    available_at: datetime = Field(description="Not worked on before.")
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    progress: str | None
    revision: int | None = Field(description="The revision of the day after this run.")
    added: int | None
    changed: int | None
    removed: int | None
    error_code: str | None
    error_detail: str | None
    requested_by: str | None
    created_at: datetime


class RunRequested(RunOut):
    """The run that will do the work."""

    joined: bool = Field(description="Whether a run of that date was waiting already.")


class Runs(BaseModel):
    """A page of runs, newest first."""

    runs: list[RunOut]
    next: str | None = Field(description="What to send as `before` for the next page, if any.")


class RunsQuery(BaseModel):
    """Which runs to list."""

    model_config = ConfigDict(extra="forbid")

    date: Day | None = None
    state: Annotated[list[RunState], Field(description="One or more.")] = []
    trigger: RunTrigger | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    before: Before = None


RunId = Annotated[
    UUID,
    uuid_of("a run", listed_by="/report/runs"),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]


class CancelIn(BaseModel):
    """Why to cancel."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason = None
