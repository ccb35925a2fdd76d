"""What is stored of schedules?"""

from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import CheckConstraint, Index, Interval, text
from sqlmodel import Field

from daybook_domain.types import Table, UtcDateTime, created_at, identity, text_enum, updated_at


class Catchup(StrEnum):
    """Which fires that came due while no scheduler ran still become work?"""

    ALL = "all"
    LATEST = "latest"
    NONE = "none"


class ScheduleOrigin(StrEnum):
    """Who wrote a schedule, and so who may change it?"""

    SETTINGS = "settings"
    API = "api"


class Schedule(Table, table=True):
    """When a report is due, and of which date counted from the local date of the fire."""

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("catchup_window >= interval '0'", name="catchup_window_not_negative"),
        Index("ix_schedules_due", "next_fire_at", postgresql_where=text("enabled")),
    )

    id: int | None = identity()
    name: str = Field(max_length=100, unique=True)
    cron: str = Field(max_length=200)
    timezone: str = Field(max_length=100)
    report_offset_days: int = Field(default=-1)
    enabled: bool = Field(default=True)
    note: str | None = Field(default=None, max_length=500)
    catchup: Catchup = Field(default=Catchup.ALL, sa_type=text_enum(Catchup, name="catchup"))
    catchup_window: timedelta = Field(default=timedelta(days=7), sa_type=Interval)
    next_fire_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Nominal time of the next fire; null: it will never fire."""
    last_fire_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    origin: ScheduleOrigin = Field(sa_type=text_enum(ScheduleOrigin, name="origin"))
    error: str | None = Field(default=None, max_length=500)
    """Why the last attempt to materialise this schedule failed; null: it did not."""
    created_at: datetime = created_at()
    updated_at: datetime = updated_at()
