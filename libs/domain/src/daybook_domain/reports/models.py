"""Tables and enums of reports: report rows, and one manifest a business day."""

from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field

from daybook_domain.types import Table, UtcDateTime, created_at, identity, updated_at


class Report(Table, table=True):
    """A report row: one order of a business day.

    `order_id` is not a foreign key: its triggers would make a build take 1.5 times as long. The
    build reads the ids from `orders` in the same snapshot, and triggers on `orders` prevent the
    deletion of an order that a report contains.
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
    """State of the report of a day."""

    SEALED = "sealed"
    """Built after the end of the day."""
    PROVISIONAL = "provisional"
    """Built before the end of the day."""
    ABSENT = "absent"
    """Never built."""


class ReportDay(Table, table=True):
    """The manifest of the report of one business day; no row if it was never built (absent)."""

    __tablename__ = "report_days"
    __table_args__ = (
        Index(
            "ix_report_days_stale",
            "stale_since",
            postgresql_where=text("stale_since IS NOT NULL"),
        ),
    )

    report_date: date = Field(primary_key=True)
    revision: int
    orders_count: int = Field(sa_type=BigInteger)
    products_count: int = Field(sa_type=BigInteger)
    digest: str = Field(max_length=16)
    data_through: datetime = Field(sa_type=UtcDateTime)
    """The report contains every order that was committed before this instant."""
    built_at: datetime = Field(sa_type=UtcDateTime)
    """The last build that changed a row."""
    sealed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """The first build after the end of the day; null: provisional."""
    reconciled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """The last request of a rebuild by reconciliation."""
    stale_since: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """The first change of an order that the report contains and does not reflect yet.

    Set in the transaction of the change, and cleared by a build that has seen the change.
    """
    announced_revision: int = Field(default=0)
    last_run_id: UUID | None = Field(default=None)
    """The run that created this revision."""
    timezone: str | None = Field(default=None, max_length=100)
    """The zone of the day that was built last; null: built before it was recorded."""
    created_at: datetime = created_at()


class BusinessTimezone(Table, table=True):
    """The time zone of all business days: one row, or none before the first service started."""

    __tablename__ = "business_timezone"
    __table_args__ = (CheckConstraint("is_only", name="one_row"),)

    is_only: bool = Field(default=True, primary_key=True)
    timezone: str = Field(max_length=100)
    created_at: datetime = created_at()
    updated_at: datetime = updated_at()
