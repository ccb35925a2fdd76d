"""Tables of backfills and the dates that they build."""

from datetime import date, datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field

from daybook_domain.types import Table, UtcDateTime, created_at, text_enum


class BackfillMode(StrEnum):
    """Which dates of the range are built."""

    ABSENT = "absent"
    """The dates without a sealed report."""
    FAILED = "failed"
    """The dates whose latest run failed."""
    ALL = "all"


class BackfillState(StrEnum):
    """The life cycle of a backfill."""

    RUNNING = "running"
    PAUSED = "paused"
    """No further date is started."""
    CANCELLED = "cancelled"
    """No further date is started, and its pending runs are cancelled."""
    FINISHED = "finished"
    """Every date has an outcome."""


class BackfillDayOutcome(StrEnum):
    """The outcome of a date."""

    OPEN = "open"
    """Its run has not ended."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SEALED = "skipped: sealed"
    NOT_FAILED = "skipped: not failed"
    NONEXISTENT = "skipped: never was"
    """The time zone skipped that date."""


class Backfill(Table, table=True):
    """A request to build the reports of a range of dates, a few at a time."""

    __tablename__ = "backfills"
    __table_args__ = (
        CheckConstraint("from_date <= to_date", name="range"),
        CheckConstraint("concurrency > 0", name="concurrency_positive"),
        # A repeated request joins the active backfill.
        Index(
            "uq_backfills_going",
            "from_date",
            "to_date",
            "mode",
            unique=True,
            postgresql_where=text("state IN ('running', 'paused')"),
        ),
        Index(
            "ix_backfills_unfinished", "created_at", postgresql_where=text("finished_at IS NULL")
        ),
        Index("ix_backfills_created_at", "created_at", "id"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    from_date: date
    to_date: date
    """Inclusive."""
    mode: BackfillMode = Field(sa_type=text_enum(BackfillMode, name="mode"))
    state: BackfillState = Field(
        default=BackfillState.RUNNING, sa_type=text_enum(BackfillState, name="state")
    )
    concurrency: int
    """Maximum number of its dates that are pending or running at the same time."""
    next_date: date
    """The next date to decide about; all earlier dates are decided."""
    reason: str | None = Field(default=None, max_length=500)
    requested_by: str | None = Field(default=None, max_length=200)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When its last run ended, also that of a cancelled backfill."""
    created_at: datetime = created_at()

    @property
    def total(self) -> int:
        """The number of dates in the range."""
        return (self.to_date - self.from_date).days + 1


class BackfillDay(Table, table=True):
    """A date that a backfill has decided about, and its outcome."""

    __tablename__ = "backfill_days"
    __table_args__ = (
        Index("ix_backfill_days_open", "backfill_id", postgresql_where=text("outcome = 'open'")),
        Index("ix_backfill_days_run_id", "run_id", postgresql_where=text("outcome = 'open'")),
    )

    backfill_id: UUID = Field(primary_key=True, foreign_key="backfills.id", ondelete="CASCADE")
    report_date: date = Field(primary_key=True)
    outcome: BackfillDayOutcome = Field(sa_type=text_enum(BackfillDayOutcome, name="outcome"))
    run_id: UUID | None = Field(default=None)
    """The run that builds the date."""
    joined: bool = Field(default=False)
    """The run was requested by something else, and the backfill joined it."""
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = created_at()
