"""What is stored of reports: their rows, one line about each day, and the runs that build them?"""

from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, UniqueConstraint
from sqlmodel import Field

from daybook_domain.types import Table, UtcDateTime, created_at, identity


class Report(Table, table=True):
    """One row for each order of a business day.

    `order_id` is no foreign key: its triggers would cost the build 1.5 times its time. The build
    takes the ids from `orders` in the same snapshot, and `orders` refuses to lose one that is here.
    """

    __tablename__ = "reports"
    __table_args__ = (
        UniqueConstraint("report_at", "order_id"),
        CheckConstraint("count_product >= 0", name="count_product_not_negative"),
    )

    id: int | None = identity()
    report_at: date
    order_id: int = Field(sa_type=BigInteger)
    count_product: int = Field(sa_type=BigInteger)
    created_at: datetime = created_at()


class DayState(StrEnum):
    """May the report of a day be relied upon?"""

    SEALED = "sealed"
    """Built after the day had ended."""
    PROVISIONAL = "provisional"
    """Built while the day was going on."""
    ABSENT = "absent"
    """Never built."""


class ReportDay(Table, table=True):
    """What is known about the report of one business day; no row: never built (absent)."""

    __tablename__ = "report_days"

    report_date: date = Field(primary_key=True)
    revision: int
    orders_count: int = Field(sa_type=BigInteger)
    products_count: int = Field(sa_type=BigInteger)
    digest: str = Field(max_length=16)
    data_through: datetime = Field(sa_type=UtcDateTime)
    """Every order committed before this instant is in the report."""
    built_at: datetime = Field(sa_type=UtcDateTime)
    """When the rows last changed."""
    sealed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When the report was first built after its day had ended; null: provisional."""
    reconciled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When the scheduler last asked for a rebuild to let late orders in."""
    announced_revision: int = Field(default=0)
    last_run_id: UUID | None = Field(default=None)
    """The run that made this revision."""
    created_at: datetime = created_at()
