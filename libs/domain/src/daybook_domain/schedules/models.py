"""What is stored of schedules?"""

from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import CheckConstraint, Index, Interval, text
from sqlmodel import Field

from daybook_domain.types import (
    Table,
    UtcDateTime,
    created_at,
    identity,
    reference,
    text_enum,
    updated_at,
)


class Catchup(StrEnum):
    """Which fires that came due while no scheduler ran still become work?"""

    ALL = "all"
    LATEST = "latest"
    NONE = "none"


class Overlap(StrEnum):
    """What becomes of a fire while work of the same schedule is still going?"""

    SKIP = "skip"
    """No work: it is in the ledger as `skipped: overlap`."""
    BUFFER_ONE = "buffer_one"
    """It waits until the work before it has ended; one run for each date waits."""
    ALLOW = "allow"
    """Its date is built beside the others."""


class ScheduleOrigin(StrEnum):
    """Who wrote a schedule, and so who may change it?"""

    SETTINGS = "settings"
    API = "api"
    TASKIQ = "taskiq"
    """A caller of TaskIQ's `schedule_by_cron` or `schedule_by_time`."""


class Schedule(Table, table=True):
    """When a report is due, and of which date counted from the local date of the fire."""

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("catchup_window >= interval '0'", name="catchup_window_not_negative"),
        CheckConstraint("jitter >= interval '0'", name="jitter_not_negative"),
        Index(
            "uq_schedules_name", "name", unique=True, postgresql_where=text("deleted_at IS NULL")
        ),
        # Those that failed last time have an index of their own, so that they hold up nobody.
        Index(
            "ix_schedules_due",
            "next_fire_at",
            postgresql_where=text("deleted_at IS NULL AND error IS NULL"),
        ),
        Index(
            "ix_schedules_broken",
            "next_fire_at",
            postgresql_where=text("deleted_at IS NULL AND error IS NOT NULL"),
        ),
    )

    id: int | None = identity()
    name: str = Field(max_length=100)
    cron: str = Field(max_length=200)
    timezone: str = Field(max_length=100)
    report_offset_days: int = Field(default=-1)
    enabled: bool = Field(default=True)
    """A schedule that is not goes on being due; its fires are in the ledger as skipped."""
    note: str | None = Field(default=None, max_length=500)
    """Why it is paused."""
    paused_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    catchup: Catchup = Field(default=Catchup.ALL, sa_type=text_enum(Catchup, name="catchup"))
    catchup_window: timedelta = Field(default=timedelta(days=7), sa_type=Interval)
    overlap: Overlap = Field(
        default=Overlap.BUFFER_ONE,
        sa_type=text_enum(Overlap, name="overlap"),
        sa_column_kwargs={"server_default": Overlap.BUFFER_ONE.value},
    )
    jitter: timedelta = Field(
        default=timedelta(0), sa_type=Interval, sa_column_kwargs={"server_default": text("'0'")}
    )
    """By up to so much, each time by another, work begins after its due time."""
    pause_on_failure: bool = Field(
        default=False, sa_column_kwargs={"server_default": text("false")}
    )
    version: int = Field(default=1, sa_column_kwargs={"server_default": text("1")})
    """Grows with each change that somebody makes; fires are no change."""
    defined_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Fires after this instant follow this cron, zone and offset; null: those of all time."""
    next_fire_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Nominal time of the next fire; null: it will never fire."""
    last_fire_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    origin: ScheduleOrigin = Field(sa_type=text_enum(ScheduleOrigin, name="origin"))
    error: str | None = Field(default=None, max_length=500)
    """Why the last attempt to materialise this schedule failed; null: it did not."""
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """A removed schedule stays for as long as the ledger speaks of it."""
    created_at: datetime = created_at()
    updated_at: datetime = updated_at()


class LedgerBeginning(Table, table=True):
    """From when on is the ledger complete? One row; none: from the first fire on."""

    __tablename__ = "ledger_beginnings"
    __table_args__ = (CheckConstraint("is_only", name="one_row"),)

    is_only: bool = Field(default=True, primary_key=True)
    forgotten_through: datetime = Field(sa_type=UtcDateTime)
    """Nothing that ended after this instant was forgotten, so no fire that was due after it."""
    created_at: datetime = created_at()


class TaskiqEntry(Table, table=True):
    """One schedule of TaskIQ's source in Redis, as it was last seen there."""

    __tablename__ = "taskiq_entries"
    __table_args__ = (
        CheckConstraint("(schedule_id IS NULL) <> (problem IS NULL)", name="schedule_or_problem"),
    )

    id: str = Field(primary_key=True, max_length=200)
    """TaskIQ's `schedule_id`."""
    digest: str = Field(max_length=32)
    """Of what Redis has of it: the same again changes nothing."""
    memory: str = Field(max_length=32)
    """In which memory of Redis it was seen; one that is lost takes no schedule with it."""
    schedule_id: int | None = reference("schedules.id", nullable=True, index=True)
    problem: str | None = Field(default=None, max_length=500)
    """Why it cannot be fired; null: it can."""
    created_at: datetime = created_at()
