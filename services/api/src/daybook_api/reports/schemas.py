"""Request and response bodies of reports."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from daybook_api.dates import parse_day


class ReportRow(BaseModel):
    """The report row of one order."""

    id: int
    report_at: date
    order_id: int
    count_product: int = Field(ge=0, description="Sum of the quantities of the order's items.")
    created_at: datetime


class RelativeDay(StrEnum):
    """A business day that is named by its position."""

    TODAY = "today"
    YESTERDAY = "yesterday"
    LATEST = "latest"
    """The latest day with a sealed report."""


def _parse_requested(value: object) -> date | RelativeDay:
    if isinstance(value, str) and value in set(RelativeDay):
        return RelativeDay(value)
    return parse_day(value)


RequestedDay = Annotated[date | RelativeDay, BeforeValidator(_parse_requested)]


class ReportQuery(BaseModel):
    """The date and the format of the requested report."""

    model_config = ConfigDict(extra="forbid")

    date: RequestedDay | None = None
    report_date: RequestedDay | None = None
    format: str | None = None
