"""What do requests say of a schedule, and answers?"""

from datetime import date, datetime, timedelta
from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from daybook_domain.schedules.fire_planning import get_report_date
from daybook_domain.schedules.models import Catchup, Overlap, Schedule, ScheduleOrigin
from daybook_domain.schedules.service import ResumeMode
from daybook_domain.validation import Storable

Cron = Annotated[
    str,
    Field(
        description="Five fields, or an alias such as `@daily`; see docs/schedules.md.",
        examples=["0 9 * * MON-FRI"],
    ),
]
Name = Annotated[str, Storable]
Zone = Annotated[str, Field(description="An IANA name.", examples=["Europe/Berlin"]), Storable]
Offset = Annotated[
    int,
    Field(description="Which date is reported, counted from the local date of the fire."),
]
Seconds = Annotated[int, Field(ge=0)]
Note = Annotated[Annotated[str, Storable] | None, Field(max_length=400)]

_DURATIONS = {"catchup_window_seconds": "catchup_window", "jitter_seconds": "jitter"}


class ScheduleIn(BaseModel):
    """A whole schedule; what is left out gets the default."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    cron: Cron
    timezone: Zone | None = Field(default=None, description="`DAYBOOK_TIMEZONE` when left out.")
    report_offset_days: Offset = -1
    catchup: Catchup = Catchup.ALL
    catchup_window_seconds: Seconds = 7 * 86_400
    overlap: Overlap = Overlap.BUFFER_ONE
    jitter_seconds: Seconds = 0
    pause_on_failure: bool = False

    def said(self, *, timezone: str) -> dict[str, Any]:
        """Return all of it in the words of the domain; `timezone` where none is given."""
        said = self.model_dump()
        return in_domain_words(said | {"timezone": self.timezone or timezone})


class SchedulePatch(BaseModel):
    """What is to change of a schedule; the rest stays."""

    model_config = ConfigDict(extra="forbid")

    name: Name = ""
    cron: Cron = ""
    timezone: Zone = ""
    report_offset_days: Offset = -1
    catchup: Catchup = Catchup.ALL
    catchup_window_seconds: Seconds = 0
    overlap: Overlap = Overlap.BUFFER_ONE
    jitter_seconds: Seconds = 0
    pause_on_failure: bool = False

    def said(self) -> dict[str, Any]:
        """Return what was given, and only that, in the words of the domain."""
        return in_domain_words(self.model_dump(exclude_unset=True))


def in_domain_words(said: dict[str, Any]) -> dict[str, Any]:
    """Return what was said, with durations for seconds."""
    return {
        _DURATIONS.get(name, name): timedelta(seconds=value) if name in _DURATIONS else value
        for name, value in said.items()
    }


class ScheduleOut(BaseModel):
    """A schedule with all that is in effect."""

    id: int
    name: str
    cron: str
    timezone: str
    report_offset_days: int
    catchup: Catchup
    catchup_window_seconds: int
    overlap: Overlap
    jitter_seconds: int
    pause_on_failure: bool
    enabled: bool
    note: str | None = Field(description="Why it is paused.")
    paused_at: datetime | None
    origin: ScheduleOrigin
    version: int = Field(description="Grows with each change; the ETag. Fires are no change.")
    next_fire_at: datetime | None = Field(description="While paused it goes on being due.")
    next_report_date: date | None = Field(description="What the next fire reports.")
    last_fire_at: datetime | None
    error: str | None = Field(description="Why its due fires could not be recorded.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, schedule: Schedule) -> Self:
        """Return what is told about a schedule."""
        told = schedule.model_dump()
        at = schedule.next_fire_at
        return cls(
            **told,
            catchup_window_seconds=int(schedule.catchup_window.total_seconds()),
            jitter_seconds=int(schedule.jitter.total_seconds()),
            # A broken one, whose zone or cron means nothing, must be possible to look at.
            next_report_date=None
            if at is None or schedule.error
            else get_report_date(schedule, at),
        )


class Schedules(BaseModel):
    """A page of schedules, in the order in which they were added."""

    schedules: list[ScheduleOut]
    next: int | None = Field(description="What to send as `after` for the next page, if any.")


ScheduleId = Annotated[int, Path(ge=1, le=2**63 - 1)]


class PauseIn(BaseModel):
    """Why to pause."""

    model_config = ConfigDict(extra="forbid")

    note: Note = None


class ResumeIn(BaseModel):
    """How to go on."""

    model_config = ConfigDict(extra="forbid")

    mode: ResumeMode = Field(
        default=ResumeMode.FROM_NOW,
        description="`catchup` makes up, as the policy says, for what was skipped meanwhile.",
    )


class TaskiqEntryOut(BaseModel):
    """One schedule of TaskIQ's source in Redis."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="TaskIQ's `schedule_id`; also the name of the schedule here.")
    schedule_id: int | None
    problem: str | None = Field(description="Why it cannot be fired.")
    created_at: datetime


class TaskiqEntries(BaseModel):
    """A page of them, by id."""

    entries: list[TaskiqEntryOut]
    next: str | None = Field(description="What to send as `after` for the next page, if any.")


class TaskiqEntriesQuery(BaseModel):
    """Which of them to list."""

    model_config = ConfigDict(extra="forbid")

    broken: bool | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    after: Annotated[str, Field(max_length=200), Storable] = ""


class SchedulesQuery(BaseModel):
    """Which schedules to list."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    after: Annotated[int, Field(ge=0, le=2**63 - 1, description="`next` of the page before.")] = 0
