"""Tables and enums of report runs."""

from datetime import date, datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, Index, UniqueConstraint, text
from sqlmodel import Field

from daybook_domain.types import Table, UtcDateTime, created_at, reference, text_enum


class RunTrigger(StrEnum):
    """Why does a run exist?"""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    BACKFILL = "backfill"
    RECONCILE = "reconcile"


class RunState(StrEnum):
    """How far has a run come? See the diagram in docs/architecture.md."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    MISSED = "missed"


class SkipCause(StrEnum):
    """Why did a fire become no work of its own?"""

    JOINED = "joined"
    """A run of its date was waiting already, and does its work."""
    OVERLAP = "overlap"
    """Work of the same schedule was still going."""
    PAUSED = "paused"
    """Its schedule was paused."""
    OUTSIDE_WINDOW = "outside window"
    """It was found out too late to be made up for."""
    CATCHUP = "catchup"
    """It was found out late, and the schedule does not make up for such fires."""


class ReportRun(Table, table=True):
    """A unit of work that builds the report of one date; also the outbox of its message.

    Runs with a `schedule_id` are the ledger of fires: one row for each due time of a schedule.
    """

    __tablename__ = "report_runs"
    __table_args__ = (
        UniqueConstraint("schedule_id", "scheduled_for"),
        # At most one run of a date waits; later requests join it.
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
        # Workers take the most urgent of those that were sent to them.
        Index(
            "ix_report_runs_queued",
            "priority",
            "queued_at",
            postgresql_where=text("state = 'queued'"),
        ),
        # Which work of a schedule is still going?
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
    """The run that does the work of this one, when `state` is skipped because it joined."""
    priority: int = Field(default=0)
    """Dispatched lowest first: 0 the nightly run and people, 10 reconciliation, 20 backfill."""
    attempt: int = Field(default=0)
    max_attempts: int = Field(default=5)
    available_at: datetime = Field(sa_type=UtcDateTime)
    """Not dispatched before; in the future after a failed attempt."""
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """While queued or running: after this instant the reaper takes the run back."""
    fence: int = Field(default=0, sa_type=BigInteger)
    """Grows with each claim; a worker commits only while it holds the newest."""
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
    created_at: datetime = created_at()
