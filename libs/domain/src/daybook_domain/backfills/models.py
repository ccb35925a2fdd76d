"""What is stored of backfills: a range of dates to build, and what became of each?"""

from datetime import date, datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field

from daybook_domain.types import Table, UtcDateTime, created_at, text_enum


class BackfillMode(StrEnum):
    """Which dates of the range are built?"""

    ABSENT = "absent"
    """Those without a sealed report."""
    FAILED = "failed"
    """Those whose latest run failed."""
    ALL = "all"


class BackfillState(StrEnum):
    """How far has a backfill come?"""

    RUNNING = "running"
    PAUSED = "paused"
    """No further date is begun."""
    CANCELLED = "cancelled"
    """No further date is begun, for ever, and what no worker had begun is withdrawn."""
    FINISHED = "finished"
    """Something has become of each date."""


class BackfillDayOutcome(StrEnum):
    """What became of a date?"""

    OPEN = "open"
    """Its run has not ended."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SEALED = "skipped: sealed"
    NOT_FAILED = "skipped: not failed"
    NEVER_WAS = "skipped: never was"
    """The zone jumped over that date."""


class Backfill(Table, table=True):
    """A request to build the reports of a range of dates, a few at a time."""

    __tablename__ = "backfills"
    __table_args__ = (
        CheckConstraint("from_date <= to_date", name="range"),
        CheckConstraint("concurrency > 0", name="concurrency_positive"),
        # The same request again joins the one that is going on.
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
    """Included."""
    mode: BackfillMode = Field(sa_type=text_enum(BackfillMode, name="mode"))
    state: BackfillState = Field(
        default=BackfillState.RUNNING, sa_type=text_enum(BackfillState, name="state")
    )
    concurrency: int
    """How many of its dates are at most waiting or being built at the same time."""
    next_date: date
    """The dates before this one have been decided about."""
    reason: str | None = Field(default=None, max_length=500)
    requested_by: str | None = Field(default=None, max_length=200)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When nothing of it was going on any more, cancelled or not."""
    created_at: datetime = created_at()

    @property
    def total(self) -> int:
        """How many dates it is about."""
        return (self.to_date - self.from_date).days + 1


class BackfillDay(Table, table=True):
    """One date that a backfill has come to, and what became of it."""

    __tablename__ = "backfill_days"
    __table_args__ = (
        Index("ix_backfill_days_open", "backfill_id", postgresql_where=text("outcome = 'open'")),
        Index("ix_backfill_days_run_id", "run_id", postgresql_where=text("outcome = 'open'")),
    )

    backfill_id: UUID = Field(primary_key=True, foreign_key="backfills.id", ondelete="CASCADE")
    report_date: date = Field(primary_key=True)
    outcome: BackfillDayOutcome = Field(sa_type=text_enum(BackfillDayOutcome, name="outcome"))
    run_id: UUID | None = Field(default=None)
    """The run that does the work."""
    joined: bool = Field(default=False)
    """That run was there already, for another reason."""
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = created_at()
