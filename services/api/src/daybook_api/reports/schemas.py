"""Request and response bodies of reports."""

from datetime import date, datetime

from pydantic import BaseModel, ConfigDict, Field

from daybook_api.dates import Day


class ReportRow(BaseModel):
    """The report row of one order."""

    id: int
    report_at: date
    order_id: int
    count_product: int = Field(ge=0, description="Sum of the quantities of the order's items.")
    created_at: datetime


class ReportQuery(BaseModel):
    """The date and the format of the requested report."""

    model_config = ConfigDict(extra="forbid")

    date: Day | None = None
    report_date: Day | None = None
    format: str | None = None
