"""Request and response bodies of reports."""

from datetime import date, datetime

from pydantic import BaseModel, ConfigDict, Field

from daybook_api.dates import Day


class ReportRow(BaseModel):
    """What a report says about one order of its day."""

    id: int
    report_at: date
    order_id: int
    count_product: int = Field(ge=0, description="The sum of the quantities of its items.")
    created_at: datetime


class ReportQuery(BaseModel):
    """Which report, in which form."""

    model_config = ConfigDict(extra="forbid")

    date: Day | None = None
    report_date: Day | None = None
    format: str | None = None
