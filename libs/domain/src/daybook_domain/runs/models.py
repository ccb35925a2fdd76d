"""Tables and enums of report runs."""

from datetime import date, datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, Index, UniqueConstraint, text
from sqlmodel import Field

from daybook_domain.types import Table, UtcDateTime, created_at, reference, text_enum


class RunTrigger(StrEnum):
    """Origin of a run."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    BACKFILL = "backfill"
    RECONCILE = "reconcile"


class RunState(StrEnum):
    """State of a run; docs/architecture.md has the state diagram."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    MISSED = "missed"


class SkipCause(StrEnum):
    """Cause for which a fire was skipped or missed instead of executed as a run of its own."""

    JOINED = "joined"
    """A run of the same date was waiting already; it builds the report for this fire too."""
    OVERLAP = "overlap"
    """An earlier run of the same schedule had not finished."""
    PAUSED = "paused"
    """The schedule was paused."""
    OUTSIDE_WINDOW = "outside window"
    """The fire was found after the catch-up window."""
    CATCHUP = "catchup"
    """The fire was found late, and the catch-up policy of the schedule excludes it."""


class ReportRun(Table, table=True):
    """A report run: one attempt-bearing build of one date; also the outbox of its message.

    Runs with a `schedule_id` are the ledger of fires: one row for each due time of a schedule.
    """

    __tablename__ = "report_runs"
    __table_args__ = (
        UniqueConstraint("schedule_id", "scheduled_for"),
        # At most one waiting run a date; later requests join it.
        Index(
            "uq_report_runs_waiting",
            "report_date",
            unique=True,
            postgresql_where=text("state IN ('pending', 'queued')"),
        ),
        Index(
            "ix_report_runs_dispatchable",
            "priority",
            "available_at",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_report_runs_leased",
            "lease_until",
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
        # Workers claim the most urgent queued run.
        Index(
            "ix_report_runs_queued",
            "priority",
            "queued_at",
            postgresql_where=text("state = 'queued'"),
        ),
        # Unfinished runs of a schedule.
        Index(
            "ix_report_runs_open",
            "schedule_id",
            "scheduled_for",
            postgresql_where=text("state IN ('pending', 'queued', 'running')"),
        ),
        Index(
            "ix_report_runs_joined",
            "joined_run_id",
            postgresql_where=text("joined_run_id IS NOT NULL"),
        ),
        Index(
            "ix_report_runs_finished",
            "finished_at",
            "id",
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
        Index("ix_report_runs_report_date", "report_date", "created_at"),
        Index("ix_report_runs_created_at", "created_at", "id"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    report_date: date
    trigger: RunTrigger = Field(sa_type=text_enum(RunTrigger, name="trigger"))
    schedule_id: int | None = reference("schedules.id", nullable=True)
    scheduled_for: datetime | None = Field(default=None, sa_type=UtcDateTime)
    backfill_id: UUID | None = Field(default=None)
    state: RunState = Field(default=RunState.PENDING, sa_type=text_enum(RunState, name="state"))
    cause: SkipCause | None = Field(default=None, sa_type=text_enum(SkipCause, name="cause"))
    """Set where `state` is skipped or missed."""
    reason: str | None = Field(default=None, max_length=500)
    joined_run_id: UUID | None = Field(default=None)
    """The run that this one joined, when `cause` is joined."""
    priority: int = Field(default=0)
    """Lowest first: 0 schedule and manual, 10 reconciliation, 20 backfill."""
    attempt: int = Field(default=0)
    max_attempts: int = Field(default=5)
    available_at: datetime = Field(sa_type=UtcDateTime)
    """Earliest dispatch; in the future after a failed attempt."""
    outage_since: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Since when attempts end because the database is unavailable; they are not counted."""
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """While queued or running: the instant after which the run is reaped."""
    fence: int = Field(default=0, sa_type=BigInteger)
    """Incremented by each claim; a worker can commit only with the current value."""
    worker: str | None = Field(default=None, max_length=200)
    progress: str | None = Field(default=None, max_length=50)
    queued_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revision: int | None = Field(default=None)
    added: int | None = Field(default=None, sa_type=BigInteger)
    changed: int | None = Field(default=None, sa_type=BigInteger)
    removed: int | None = Field(default=None, sa_type=BigInteger)
    error_code: str | None = Field(default=None, max_length=100)
    error_detail: str | None = Field(default=None, max_length=2000)
    requested_by: str | None = Field(default=None, max_length=200)
    timezone: str | None = Field(default=None, max_length=100)
    """The zone of the requested business day; null: requested by a trigger, or not recorded."""
    created_at: datetime = created_at()
