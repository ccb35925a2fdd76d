"""Request and response bodies of backfills."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from daybook_api.dates import Day
from daybook_api.pagination import Before, uuid_of
from daybook_domain.backfills.decisions import DayAction, DayDecision
from daybook_domain.backfills.models import Backfill, BackfillMode, BackfillState
from daybook_domain.backfills.queries import BackfillProgress
from daybook_domain.validation import Storable


class BackfillOut(BaseModel):
    """A range of dates that is built, and how far it has come."""

    id: UUID
    from_date: date = Field(serialization_alias="from")
    to_date: date = Field(serialization_alias="to", description="Included.")
    mode: BackfillMode
    state: BackfillState
    concurrency: int = Field(description="At most so many of its dates are under way at once.")
    reason: str | None
    requested_by: str | None
    total: int = Field(description="How many dates it is about.")
    done: int = Field(description="How many dates nothing more will become of.")
    untouched: int = Field(description="How many dates have not been decided about.")
    joined: int = Field(description="How many dates another run builds, or has built.")
    outcomes: dict[str, int] = Field(description="How many dates have come to which outcome.")
    per_minute: int = Field(description="How many dates were built within the last minute.")
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, backfill: Backfill, progress: BackfillProgress) -> Self:
        """Return what is told about a backfill."""
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
    """The backfill that will do the work."""

    already_going: bool = Field(description="The same range and mode was being built already.")


class DayVerdict(BaseModel):
    """What would become of a date."""

    report_date: date
    verdict: DayAction
    run_id: UUID | None = Field(description="The run that would be joined.")


class BackfillPreview(BaseModel):
    """What would become of a range of dates; nothing has been asked for."""

    total: int
    verdicts: dict[DayAction, int]
    days: list[DayVerdict]

    @classmethod
    def of(cls, found: Sequence[tuple[date, DayDecision]]) -> Self:
        """Return what is told about the decisions."""
        verdicts = [decision.action for _, decision in found]
        return cls(
            total=len(found),
            verdicts={verdict: verdicts.count(verdict) for verdict in DayAction},
            days=[
                DayVerdict(report_date=day, verdict=decision.action, run_id=decision.run_id)
                for day, decision in found
            ],
        )


class Backfills(BaseModel):
    """A page of backfills, newest first."""

    backfills: list[BackfillOut]
    next: str | None = Field(description="What to send as `before` for the next page, if any.")


class BackfillsQuery(BaseModel):
    """Which backfills to list."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[list[BackfillState], Field(description="One or more.")] = []
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    before: Before = None


class BackfillDayOut(BaseModel):
    """One date of a backfill."""

    model_config = ConfigDict(from_attributes=True)

    report_date: date
    outcome: str
    run_id: UUID | None
    joined: bool
    revision: int | None
    error_code: str | None
    error_detail: str | None
    settled_at: datetime | None


class BackfillDays(BaseModel):
    """A page of the dates that a backfill has come to."""

    days: list[BackfillDayOut]
    next: date | None = Field(description="What to send as `after` for the next page, if any.")


class BackfillDaysQuery(BaseModel):
    """Which dates to list."""

    model_config = ConfigDict(extra="forbid")

    outcome: Annotated[
        list[Annotated[str, Storable]], Field(description="One or more.", max_length=20)
    ] = []
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Day | None = None


BackfillId = Annotated[
    UUID,
    uuid_of("a backfill", listed_by="/report/backfills"),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
