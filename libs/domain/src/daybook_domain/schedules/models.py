"""Tables of schedules."""

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
    """Catch-up policy: which of the fires that are recorded late become runs."""

    ALL = "all"
    LATEST = "latest"
    NONE = "none"


class Overlap(StrEnum):
    """Overlap policy: how a fire is treated while earlier work of its schedule is active."""

    SKIP = "skip"
    """It is recorded as `skipped: overlap`."""
    BUFFER_ONE = "buffer_one"
    """Its run is dispatched after the earlier work has ended; each date has one pending run."""
    ALLOW = "allow"
    """Its run is dispatched concurrently."""


class ScheduleOrigin(StrEnum):
    """The source of a schedule's definition, which determines where it can be changed."""

    SETTINGS = "settings"
    API = "api"
    TASKIQ = "taskiq"
    """TaskIQ's `schedule_by_cron` or `schedule_by_time`."""


class Schedule(Table, table=True):
    """A schedule: when it fires, and which date it reports, counted from the fire's local date."""

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("catchup_window >= interval '0'", name="catchup_window_not_negative"),
        CheckConstraint("jitter >= interval '0'", name="jitter_not_negative"),
        Index(
            "uq_schedules_name", "name", unique=True, postgresql_where=text("deleted_at IS NULL")
        ),
        # Failed schedules have their own index, so that they do not delay the others.
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
    """False: paused. A paused schedule still fires; its fires are recorded as skipped."""
    note: str | None = Field(default=None, max_length=500)
    """The reason for the pause."""
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
    """Maximum delay between a due time and the dispatch of its run; it differs for each fire."""
    pause_on_failure: bool = Field(
        default=False, sa_column_kwargs={"server_default": text("false")}
    )
    version: int = Field(default=1, sa_column_kwargs={"server_default": text("1")})
    """Incremented by each change that a user makes, not by fires."""
    defined_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Fires after this instant follow the current cron, zone and offset; null: all fires do."""
    next_fire_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Nominal time of the next fire; null: it will not fire again."""
    last_fire_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    origin: ScheduleOrigin = Field(sa_type=text_enum(ScheduleOrigin, name="origin"))
    error: str | None = Field(default=None, max_length=500)
    """Why the last attempt to materialize this schedule failed; null: it succeeded."""
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """A removed schedule is deleted once the ledger has no fire of it."""
    created_at: datetime = created_at()
    updated_at: datetime = updated_at()


class LedgerStart(Table, table=True):
    """The instant after which the ledger is complete: one row, or none if nothing was pruned."""

    __tablename__ = "ledger_beginnings"
    __table_args__ = (CheckConstraint("is_only", name="one_row"),)

    is_only: bool = Field(default=True, primary_key=True)
    pruned_through: datetime = Field(
        sa_type=UtcDateTime, sa_column_kwargs={"name": "forgotten_through"}
    )
    """No run that ended after this instant was pruned, so no fire that was due after it."""
    created_at: datetime = created_at()


class TaskiqEntry(Table, table=True):
    """An entry of TaskIQ's schedule source, as last read from Redis."""

    __tablename__ = "taskiq_entries"
    __table_args__ = (
        CheckConstraint("(schedule_id IS NULL) <> (problem IS NULL)", name="schedule_or_problem"),
    )

    id: str = Field(primary_key=True, max_length=200)
    """TaskIQ's `schedule_id`."""
    digest: str = Field(max_length=32)
    """Hash of the entry in Redis: an unchanged entry is not applied again."""
    redis_epoch: str = Field(max_length=32, sa_column_kwargs={"name": "memory"})
    """The epoch of Redis in which it was read; a loss of its data starts a new epoch."""
    schedule_id: int | None = reference("schedules.id", nullable=True, index=True)
    problem: str | None = Field(default=None, max_length=500)
    """Why the entry is invalid; null: it is valid."""
    created_at: datetime = created_at()
