"""Request and response bodies of backfills."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from daybook_api.dates import Day
from daybook_api.pagination import BeforeCursor, uuid_validator
from daybook_domain.backfills.decisions import DayAction, DayDecision
from daybook_domain.backfills.models import Backfill, BackfillMode, BackfillState
from daybook_domain.backfills.queries import BackfillDayState, BackfillProgress
from daybook_domain.backfills.service import DEFAULT_CONCURRENCY, MAX_CONCURRENCY, BackfillRange
from daybook_domain.validation import Storable

Reason = Annotated[Annotated[str, Storable] | None, Field(max_length=500)]


class BackfillRangeIn(BaseModel):
    """The range of dates of a backfill."""

    model_config = ConfigDict(extra="forbid")

    first: Day = Field(alias="from", description="First date.")
    last: Day = Field(
        alias="to", description="Last date, inclusive; at most the current business day."
    )
    mode: BackfillMode = Field(
        default=BackfillMode.ABSENT,
        description="Which dates to build: those without a sealed report (`absent`), those whose"
        " latest run failed (`failed`), or all (`all`).",
    )

    def to_domain(self) -> BackfillRange:
        """Return the range of the domain."""
        return BackfillRange(first=self.first, last=self.last, mode=self.mode)


class BackfillIn(BackfillRangeIn):
    """A request to build the reports of a range of dates."""

    concurrency: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_CONCURRENCY,
            description="Maximum number of dates that are built at the same time.",
        ),
    ] = DEFAULT_CONCURRENCY
    reason: Reason = None


class BackfillOut(BaseModel):
    """A backfill: a range of dates to build, with its progress."""

    id: UUID
    from_date: date = Field(serialization_alias="from", description="First date.")
    to_date: date = Field(serialization_alias="to", description="Last date, inclusive.")
    mode: BackfillMode
    state: BackfillState
    concurrency: int = Field(description="Maximum number of dates that are built at the same time.")
    reason: str | None
    requested_by: str | None
    total: int = Field(description="Number of dates in the range.")
    done: int = Field(description="Number of dates with a final outcome.")
    untouched: int = Field(description="Number of dates that are not processed yet.")
    joined: int = Field(
        description="Number of dates that were assigned to a run of another request."
    )
    outcomes: dict[str, int] = Field(description="Number of dates by outcome.")
    per_minute: int = Field(description="Number of dates built within the last minute.")
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, backfill: Backfill, progress: BackfillProgress) -> Self:
        """Return the response body for a backfill."""
        return cls(
            **backfill.model_dump(),
            total=progress.total,
            done=progress.done,
            untouched=progress.untouched,
            joined=progress.joined,
            outcomes=dict(progress.outcomes),
            per_minute=progress.built_last_minute,
        )


class BackfillRequested(BackfillOut):
    """The backfill that was created or joined by a request."""

    already_going: bool = Field(
        description="True if the request joined an active backfill of the same range and mode."
    )


class BackfillPreviewDay(BaseModel):
    """The decision that a backfill would make for one date."""

    report_date: date
    verdict: DayAction
    run_id: UUID | None = Field(description="Run that the date would be assigned to.")


class BackfillPreview(BaseModel):
    """The decisions that a backfill would make for the dates of a range; nothing was changed."""

    total: int
    verdicts: dict[DayAction, int]
    days: list[BackfillPreviewDay]

    @classmethod
    def of(cls, decisions: Sequence[tuple[date, DayDecision]]) -> Self:
        """Return the response body for the decisions."""
        verdicts = [decision.action for _, decision in decisions]
        return cls(
            total=len(decisions),
            verdicts={verdict: verdicts.count(verdict) for verdict in DayAction},
            days=[
                BackfillPreviewDay(report_date=day, verdict=decision.action, run_id=decision.run_id)
                for day, decision in decisions
            ],
        )


class Backfills(BaseModel):
    """A page of backfills, newest first."""

    backfills: list[BackfillOut]
    next: str | None = Field(
        description="Value of `before` for the next page; null on the last page."
    )


class BackfillsQuery(BaseModel):
    """Filters of the list of backfills."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[
        list[BackfillState],
        Field(description="States to include; may be repeated. Default: all."),
    ] = []
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    before: BeforeCursor = None


class BackfillDayOut(BaseModel):
    """One date of a backfill."""

    model_config = ConfigDict(from_attributes=True)

    report_date: date
    outcome: BackfillDayState
    run_id: UUID | None
    joined: bool
    revision: int | None
    error_code: str | None
    error_detail: str | None
    settled_at: datetime | None


class BackfillDays(BaseModel):
    """A page of the dates that a backfill has processed, by date."""

    days: list[BackfillDayOut]
    next: date | None = Field(
        description="Value of `after` for the next page; null on the last page."
    )


class BackfillDaysQuery(BaseModel):
    """Filters of the list of dates of a backfill."""

    model_config = ConfigDict(extra="forbid")

    outcome: Annotated[
        list[BackfillDayState],
        Field(description="Outcomes to include; may be repeated. Default: all.", max_length=20),
    ] = []
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Annotated[
        Day | None,
        Field(description="Date behind which the page starts: `next` of the previous page."),
    ] = None


BackfillId = Annotated[
    UUID,
    uuid_validator("a backfill", listed_by="/report/backfills"),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
