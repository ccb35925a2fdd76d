"""GET /report: the report of one business day."""

from datetime import date
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import Response

from daybook_api.dates import EXAMPLE
from daybook_api.dependencies import AppState, get_app_state
from daybook_api.reports.content_negotiation import negotiate_format
from daybook_api.reports.responses import BufferedReport, StreamedReport, matches_etag
from daybook_api.reports.schemas import RelativeDay, ReportQuery, ReportRow
from daybook_domain.errors import Invalid
from daybook_domain.reports import queries
from daybook_domain.reports.business_day import shift_date
from daybook_domain.reports.rendering import Format

router = APIRouter(tags=["reports"])


_DATE_SCHEMA = {
    "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "enum": [*RelativeDay]}],
    "examples": [EXAMPLE],
}
_PARAMETERS = [
    {"name": name, "in": place, "required": False, "schema": schema, "description": description}
    for name, place, schema, description in (
        (
            "date",
            "query",
            _DATE_SCHEMA,
            "Business day: a date, `today`, `yesterday`, or `latest` for the latest sealed one."
            " Default: `today`.",
        ),
        ("report_date", "query", _DATE_SCHEMA, "Alias of `date`."),
        (
            "format",
            "query",
            {"type": "string", "enum": [*Format]},
            "Format; takes precedence over `Accept`.",
        ),
        ("If-None-Match", "header", {"type": "string"}, "`ETag` of a stored response."),
    )
]

_HEADERS = {
    "ETag": "Strong entity tag of these bytes, for `If-None-Match`.",
    "Daybook-Report-Date": "Business day of the report.",
    "Daybook-Report-State": "`sealed`: built after the day ended. `provisional`: built before"
    " the day ended. `absent`: never built.",
    "Daybook-Report-Revision": "Revision of the report, which increases whenever a row changes;"
    " 0 if absent.",
}
_ROWS_AS_TEXT = {"schema": {"type": "string"}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The rows of the report by `order_id`, streamed. A day without a report"
        " has none.",
        "model": list[ReportRow],
        "content": {Format.NDJSON.media_type: _ROWS_AS_TEXT, Format.CSV.media_type: _ROWS_AS_TEXT},
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in _HEADERS.items()
        },
    },
    304: {"description": "The stored response is current."},
}


@router.head("/report", include_in_schema=False)
@router.get(
    "/report",
    responses=_RESPONSES,
    response_class=Response,
    openapi_extra={"parameters": _PARAMETERS},
)
async def get_report(request: Request) -> Response:
    """Get the report of a business day: one row for each of its orders."""
    # The most frequent request. FastAPI needs as long to resolve dependencies and parameters as
    # Postgres needs to return a hundred rows, so this endpoint declares none and parses itself.
    app = await get_app_state(request)
    query = _parse_query(request)
    format = negotiate_format(requested=query.format, accept=request.headers.get("accept"))
    day = await _resolve_day(query.date or query.report_date or RelativeDay.TODAY, app)
    if_none_match = request.headers.getlist("if-none-match")
    if request.method == "HEAD" or if_none_match:
        edition = await app.reports.get_edition(day)
        if matches_etag(edition, format, if_none_match=if_none_match):
            return BufferedReport(edition, format, status=HTTPStatus.NOT_MODIFIED)
        if request.method == "HEAD":
            return BufferedReport(edition, format)
    small = await app.reports.find_small(day, format)
    if small is not None:
        return BufferedReport(small.edition, format, body=small.body)
    return StreamedReport(await app.reports.open_stream(day, format), format)


async def _resolve_day(requested: date | RelativeDay, app: AppState) -> date:
    match requested:
        case RelativeDay.TODAY:
            return await app.today()
        case RelativeDay.YESTERDAY:
            return shift_date(await app.today(), days=-1, timezone=app.timezone)
        case RelativeDay.LATEST:
            async with app.sessions() as session:
                return await queries.get_latest_sealed_date(session)
        case date():
            return requested


def _parse_query(request: Request) -> ReportQuery:
    parameters = request.query_params
    try:
        query = ReportQuery.model_validate(dict(parameters))
    except ValidationError as error:
        raise RequestValidationError(
            [{**item, "loc": ("query", *item["loc"])} for item in error.errors()]
        ) from None
    # A parameter may be repeated, and two parameters name the date.
    dates = {*parameters.getlist("date"), *parameters.getlist("report_date")}
    if len(dates) > 1:
        raise Invalid(
            f"more than one date requested ({', '.join(sorted(dates))[:100]}); expected one,"
            " as `date` or as `report_date`.",
            field="date",
        )
    return query
