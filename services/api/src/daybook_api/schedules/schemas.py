"""Request and response bodies of schedules."""

from datetime import date, datetime, timedelta
from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from daybook_domain.schedules.definitions import (
    MAX_CATCHUP_WINDOW,
    MAX_JITTER,
    MAX_OFFSET_DAYS,
)
from daybook_domain.schedules.fire_planning import find_report_date
from daybook_domain.schedules.models import Catchup, Overlap, Schedule, ScheduleOrigin
from daybook_domain.schedules.service import ResumeMode
from daybook_domain.validation import Storable, unset_field

Cron = Annotated[
    str,
    Field(
        description="Cron expression of five fields, or an alias such as `@daily`; see"
        " docs/schedules.md.",
        examples=["0 9 * * MON-FRI"],
    ),
]
Name = Annotated[str, Storable]
Zone = Annotated[
    str, Field(description="IANA time zone name.", examples=["Europe/Berlin"]), Storable
]
Offset = Annotated[
    int,
    Field(
        ge=-MAX_OFFSET_DAYS,
        le=0,
        description="Reported date, in days relative to the local date of the fire.",
    ),
]
CatchupSeconds = Annotated[
    int,
    Field(
        ge=0,
        le=int(MAX_CATCHUP_WINDOW.total_seconds()),
        description="Maximum delay at which a late fire still starts a run.",
    ),
]
JitterSeconds = Annotated[
    int,
    Field(
        ge=0,
        le=int(MAX_JITTER.total_seconds()),
        description="Maximum random delay of a run after the due time.",
    ),
]
Note = Annotated[Annotated[str, Storable] | None, Field(max_length=400)]

_DURATIONS = {"catchup_window_seconds": "catchup_window", "jitter_seconds": "jitter"}


class ScheduleIn(BaseModel):
    """A schedule; omitted fields have their defaults."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    cron: Cron
    timezone: Zone | None = Field(
        default=None, description="IANA time zone name. Default: `DAYBOOK_TIMEZONE`."
    )
    report_offset_days: Offset = -1
    catchup: Catchup = Catchup.ALL
    catchup_window_seconds: CatchupSeconds = 7 * 86_400
    overlap: Overlap = Overlap.BUFFER_ONE
    jitter_seconds: JitterSeconds = 0
    pause_on_failure: bool = False

    def domain_values(self, *, default_timezone: str) -> dict[str, Any]:
        """Return the values of all fields of the domain's schedule definition."""
        values = self.model_dump()
        return _with_durations(values | {"timezone": self.timezone or default_timezone})


class SchedulePatch(BaseModel):
    """Changes of a schedule; omitted fields remain as they are."""

    model_config = ConfigDict(extra="forbid")

    name: Name = unset_field()
    cron: Cron = unset_field()
    timezone: Zone = unset_field()
    report_offset_days: Offset = unset_field()
    catchup: Catchup = unset_field()
    catchup_window_seconds: CatchupSeconds = unset_field()
    overlap: Overlap = unset_field()
    jitter_seconds: JitterSeconds = unset_field()
    pause_on_failure: bool = unset_field()

    def domain_values(self) -> dict[str, Any]:
        """Return the values of the given fields of the domain's schedule definition."""
        return _with_durations(self.model_dump(exclude_unset=True))


def _with_durations(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` with a `timedelta` in place of each number of seconds."""
    return {
        _DURATIONS.get(name, name): timedelta(seconds=value) if name in _DURATIONS else value
        for name, value in values.items()
    }


class ScheduleOut(BaseModel):
    """A schedule with its effective values."""

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
    note: str | None = Field(description="The reason why the schedule is paused.")
    paused_at: datetime | None
    origin: ScheduleOrigin
    version: int = Field(
        description="Version, which is the ETag; increases with each change, but not with fires."
    )
    next_fire_at: datetime | None = Field(
        description="Due time of the next fire; also maintained while the schedule is paused."
    )
    next_report_date: date | None = Field(description="Date that the next fire reports.")
    last_fire_at: datetime | None
    error: str | None = Field(description="The error that prevents due fires from being recorded.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, schedule: Schedule) -> Self:
        """Return the response body for a schedule."""
        next_fire_at = schedule.next_fire_at
        return cls(
            **schedule.model_dump(),
            catchup_window_seconds=int(schedule.catchup_window.total_seconds()),
            jitter_seconds=int(schedule.jitter.total_seconds()),
            # A schedule with an invalid zone or cron expression must remain readable.
            next_report_date=None
            if next_fire_at is None or schedule.error
            else find_report_date(schedule, next_fire_at),
        )


class Schedules(BaseModel):
    """A page of schedules, oldest first."""

    schedules: list[ScheduleOut]
    next: int | None = Field(
        description="Value of `after` for the next page; null on the last page."
    )


ScheduleId = Annotated[int, Path(ge=1, le=2**63 - 1)]


class SchedulePauseIn(BaseModel):
    """The reason for a pause."""

    model_config = ConfigDict(extra="forbid")

    note: Note = None


class ScheduleResumeIn(BaseModel):
    """How to resume a schedule."""

    model_config = ConfigDict(extra="forbid")

    mode: ResumeMode = Field(
        default=ResumeMode.FROM_NOW,
        description="`from_now`: fires from now on. `catchup`: also the fires skipped while paused,"
        " by the catch-up policy.",
    )


class SchedulesQuery(BaseModel):
    """Filters of the list of schedules."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    after: Annotated[int, Field(ge=0, le=2**63 - 1, description="`next` of the previous page.")] = 0
