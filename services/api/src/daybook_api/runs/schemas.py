"""Request and response bodies of runs."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from daybook_api.dates import Day
from daybook_api.pagination import BeforeCursor, uuid_validator
from daybook_domain.backfills.models import BackfillMode
from daybook_domain.backfills.service import DEFAULT_CONCURRENCY, MAX_CONCURRENCY, BackfillRange
from daybook_domain.errors import Invalid
from daybook_domain.runs.models import RunState, RunTrigger, SkipCause
from daybook_domain.validation import Storable, unset_field

Reason = Annotated[Annotated[str, Storable] | None, Field(max_length=500)]


class RunIn(BaseModel):
    """A request for the report of one `date`, or of each date of a range `from` … `to`."""

    model_config = ConfigDict(extra="forbid")

    date: Day = unset_field()
    first: Day = unset_field(alias="from", description="First date of the range.")
    last: Day = unset_field(
        alias="to",
        description="Last date of the range, inclusive; at most the current business day.",
    )
    mode: BackfillMode = Field(
        default=BackfillMode.ABSENT,
        description="Which dates of a range to build: those without a sealed report (`absent`),"
        " those whose latest run failed (`failed`), or all (`all`).",
    )
    concurrency: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_CONCURRENCY,
            description="Maximum number of dates of a range that are built at the same time.",
        ),
    ] = DEFAULT_CONCURRENCY
    dry_run: bool = Field(
        default=False,
        description="For a range: return the decision for each date and change nothing.",
    )
    reason: Reason = None

    @property
    def range(self) -> BackfillRange | None:
        """The requested range, or None for a single date. Raises `Invalid`."""
        # A field with its default value counts as omitted: generated clients send defaults.
        given = {
            name
            for name in self.model_fields_set - {"reason"}
            if getattr(self, name) != type(self).model_fields[name].default
        }
        if "date" in given and len(given) > 1:
            other = sorted(given - {"date"})[0]
            raise Invalid(
                "cannot be combined with `date`; expected either `date`, or `from` and `to`",
                field={"first": "from", "last": "to"}.get(other, other),
            )
        if "date" in given:
            return None
        for name, field in (("first", "from"), ("last", "to")):
            if given and name not in given:
                raise Invalid("is required: a range needs both `from` and `to`", field=field)
        if not given:
            raise Invalid("is required, unless `from` and `to` name a range", field="date")
        return BackfillRange(first=self.first, last=self.last, mode=self.mode)


class RunOut(BaseModel):
    """A run: one build of the report of one date, with its attempts."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    report_date: date
    trigger: RunTrigger
    state: RunState
    cause: SkipCause | None = Field(description="Why the run was skipped or missed.")
    reason: str | None
    schedule_id: int | None
    backfill_id: UUID | None
    scheduled_for: datetime | None
    joined_run_id: UUID | None = Field(
        description="The run that builds the report in place of this one."
    )
    attempt: int
    max_attempts: int
    outage_since: datetime | None = Field(
        description="Since when attempts end because the database is unavailable; such attempts"
        " are not counted for `DAYBOOK_OUTAGE_RETRY_SECONDS`."
    )
    available_at: datetime = Field(description="Earliest start time.")
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    progress: str | None
    revision: int | None = Field(description="Revision of the report after this run.")
    added: int | None
    changed: int | None
    removed: int | None
    error_code: str | None
    error_detail: str | None
    requested_by: str | None
    created_at: datetime


class RunRequested(RunOut):
    """The run that was created or joined by a request."""

    joined: bool = Field(description="True if the request joined a run that was already waiting.")


class Runs(BaseModel):
    """A page of runs, newest first."""

    runs: list[RunOut]
    next: str | None = Field(
        description="Value of `before` for the next page; null on the last page."
    )


class RunsQuery(BaseModel):
    """Filters of the list of runs."""

    model_config = ConfigDict(extra="forbid")

    date: Day | None = None
    state: Annotated[
        list[RunState], Field(description="States to include; may be repeated. Default: all.")
    ] = []
    trigger: RunTrigger | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    before: BeforeCursor = None


RunId = Annotated[
    UUID,
    uuid_validator("a run", listed_by="/report/runs"),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]


class RunCancelIn(BaseModel):
    """The reason for a cancellation."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason = None
