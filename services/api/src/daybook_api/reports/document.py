"""GET /report: the report of a day."""

from datetime import date, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from daybook_api.dates import Day
from daybook_api.deps import App
from daybook_api.reports import formats
from daybook_api.reports.response import WithoutRows, WithRows, is_known
from daybook_domain.errors import Invalid
from daybook_domain.reports.render import Format

router = APIRouter(tags=["reports"])


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

    date: Day | None = Field(default=None, description="The business day; today's when left out.")
    report_date: Day | None = Field(default=None, description="The same as `date`.")
    format: str | None = Field(
        default=None,
        description="Decides instead of `Accept`.",
        json_schema_extra={"enum": [*Format]},
    )


_HEADERS = {
    "ETag": "Names these very bytes; send it back in `If-None-Match`.",
    "Daybook-Report-Date": "The business day.",
    "Daybook-Report-State": "`sealed`: built after the day had ended; `provisional`: built before;"
    " `absent`: never built.",
    "Daybook-Report-Revision": "Grows whenever a row of the report changed; 0 when absent.",
}
_ROWS = {"schema": {"type": "string"}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The rows by `order_id`, streamed; none for a day without a report.",
        "model": list[ReportRow],
        "content": {Format.NDJSON.media_type: _ROWS, Format.CSV.media_type: _ROWS},
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in _HEADERS.items()
        },
    },
    304: {"description": "You have it already."},
}


@router.head("/report", include_in_schema=False)
@router.get("/report", responses=_ANSWERS, response_class=Response)
async def get_report(
    request: Request,
    query: Annotated[ReportQuery, Query()],
    app: App,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Give one row for each order of a business day."""
    format = formats.choose(asked=query.format, accept=accept)
    day = _asked(request) or await app.today()
    if request.method == "HEAD" or if_none_match is not None:
        edition = await app.reports.edition(day)
        if is_known(edition, format, if_none_match=if_none_match):
            return WithoutRows(edition, format, status=HTTPStatus.NOT_MODIFIED)
        if request.method == "HEAD":
            return WithoutRows(edition, format, status=HTTPStatus.OK)
    return WithRows(await app.reports.open(day, format), format)


def _asked(request: Request) -> date | None:
    # From the query itself, where a name may come twice; that each is a date was checked.
    given = request.query_params
    asked = {*given.getlist("date"), *given.getlist("report_date")}
    if len(asked) > 1:
        raise Invalid(
            f"several dates were asked for ({', '.join(sorted(asked))[:100]}); expected one,"
            " as `date` or as `report_date`.",
            field="date",
        )
    return date.fromisoformat(asked.pop()) if asked else None
