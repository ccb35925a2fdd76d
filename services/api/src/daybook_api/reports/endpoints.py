"""GET /report: the report of a day."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import Response

from daybook_api.dates import EXAMPLE
from daybook_api.dependencies import AppState
from daybook_api.reports import content_negotiation
from daybook_api.reports.responses import BufferedReport, StreamedReport, matches_etag
from daybook_api.reports.schemas import ReportQuery, ReportRow
from daybook_domain.errors import Invalid
from daybook_domain.reports.rendering import Format

router = APIRouter(tags=["reports"])


_DATE = {"type": "string", "format": "date", "examples": [EXAMPLE]}
_PARAMETERS = [
    {"name": name, "in": place, "required": False, "schema": schema, "description": description}
    for name, place, schema, description in (
        ("date", "query", _DATE, "The business day; today's when left out."),
        ("report_date", "query", _DATE, "The same as `date`."),
        ("format", "query", {"enum": [*Format]}, "Decides instead of `Accept`."),
        ("If-None-Match", "header", {"type": "string"}, "The `ETag` of what you have already."),
    )
]

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
@router.get(
    "/report",
    responses=_ANSWERS,
    response_class=Response,
    openapi_extra={"parameters": _PARAMETERS},
)
async def get_report(request: Request) -> Response:
    """Give one row for each order of a business day."""
    # The one endpoint that is asked all the time. FastAPI would take as long to find out about
    # parameters as Postgres does to give a hundred rows, so they are looked at here.
    app: AppState = request.app.state.wiring
    query = _query(request)
    format = content_negotiation.choose(asked=query.format, accept=request.headers.get("accept"))
    day = query.date or query.report_date or await app.today()
    if_none_match = request.headers.getlist("if-none-match")
    if request.method == "HEAD" or if_none_match:
        edition = await app.reports.edition(day)
        if matches_etag(edition, format, if_none_match=if_none_match):
            return BufferedReport(edition, format, status=HTTPStatus.NOT_MODIFIED)
        if request.method == "HEAD":
            return BufferedReport(edition, format)
    small = await app.reports.small(day, format)
    if small is not None:
        return BufferedReport(small.edition, format, body=small.body)
    return StreamedReport(await app.reports.open(day, format), format)


def _query(request: Request) -> ReportQuery:
    given = request.query_params
    try:
        query = ReportQuery.model_validate(dict(given))
    except ValidationError as error:
        raise RequestValidationError(
            [{**item, "loc": ("query", *item["loc"])} for item in error.errors()]
        ) from None
    # A name may come twice, and there are two names.
    asked = {*given.getlist("date"), *given.getlist("report_date")}
    if len(asked) > 1:
        raise Invalid(
            f"several dates were asked for ({', '.join(sorted(asked))[:100]}); expected one,"
            " as `date` or as `report_date`.",
            field="date",
        )
    return query
