"""Which HTTP status does each meaning get? Every refusal is a problem document (RFC 9457)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from daybook_domain.errors import (
    Conflict,
    DaybookError,
    Invalid,
    NotFound,
    Outdated,
    Unavailable,
)
from daybook_domain.postgres_errors import is_outage

log = structlog.stdlib.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


class NotAcceptable(DaybookError):
    """What is asked for exists, in none of the forms that the caller can take."""

    code = "not_acceptable"


class PreconditionRequired(DaybookError):
    """The request would change something without saying which state of it was seen."""

    code = "precondition_required"


STATUS: dict[type[DaybookError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    Conflict: HTTPStatus.CONFLICT,
    Outdated: HTTPStatus.PRECONDITION_FAILED,
    PreconditionRequired: HTTPStatus.PRECONDITION_REQUIRED,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

RETRY_AFTER = {"Retry-After": "2"}


class ProblemError(BaseModel):
    """One thing that is wrong with a request."""

    location: str = Field(
        description="The part of the request: `body`, `query`, `path` or `header`."
    )
    pointer: str = Field(
        description="A JSON pointer (RFC 6901) into that part, as a URI fragment: `#/date`."
    )
    detail: str = Field(description="What is wrong with it, and what was expected.")


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description="Identifies the kind of problem; stable.")
    title: str = Field(description="The name of the status.")
    status: int = Field(description="The HTTP status, again.")
    detail: str = Field(description="What happened, for a person to read.")
    code: str = Field(description="The kind of problem, short; stable, to match on.")
    errors: list[ProblemError] = Field(
        default=[], description="What is wrong with the request, item by item."
    )
    request_id: str = Field(description="Names this request in the log; also in `X-Request-ID`.")


def install(app: FastAPI) -> None:
    """Have `app` answer every refusal with a problem document."""
    app.add_exception_handler(DaybookError, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)


def problem(
    scope: Scope,
    *,
    status: HTTPStatus,
    code: str,
    detail: str,
    errors: Sequence[ProblemError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the response that says what is wrong."""
    body = Problem(
        type=f"urn:daybook:problem:{code}",
        title=status.phrase,
        status=status.value,
        detail=detail,
        code=code,
        errors=list(errors),
        request_id=scope["state"]["request_id"],
    )
    return Response(
        body.model_dump_json(),
        status_code=status.value,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def unexpected(scope: Scope, error: Exception) -> Response:
    """Return the answer to an error that nobody named: the database is away, or it is a bug.

    A bug is told to the log, with its traceback, and not to the caller.
    """
    if is_outage(error):
        log.warning("the database is away", error=f"{type(error).__name__}: {error}")
        return refusal(scope, Unavailable("The database cannot be reached; please try again."))
    log.error("a request met a bug", exc_info=error)
    return problem(
        scope,
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        code="internal_error",
        detail="Something went wrong on our side; the log has it under the request id.",
    )


def refusal(scope: Scope, error: DaybookError) -> Response:
    """Return the answer to a refusal of the domain."""
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    errors = []
    if error.field is not None:
        location = "body" if scope["method"] in {"POST", "PUT", "PATCH"} else "query"
        pointer = _pointer(error.field.split("/"))
        errors = [ProblemError(location=location, pointer=pointer, detail=error.detail)]
    headers = RETRY_AFTER if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    return problem(
        scope, status=status, code=error.code, detail=error.detail, errors=errors, headers=headers
    )


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, DaybookError)
    if isinstance(error, Unavailable):
        log.warning("a dependency is away", detail=error.detail, error=repr(error.__cause__))
    return refusal(request.scope, error)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [_describe(item) for item in error.errors()]
    return problem(
        request.scope,
        status=HTTPStatus.UNPROCESSABLE_ENTITY,
        code="invalid_request",
        detail="; ".join(f"{item.pointer[2:] or item.location}: {item.detail}" for item in errors),
        errors=errors,
    )


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    path, method = request.url.path, request.method
    headers = dict(error.headers or {})
    match status:
        case HTTPStatus.NOT_FOUND:
            code, detail = "no_such_path", f"There is nothing at {path}; /docs lists what there is."
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = headers["Allow"] = _allowed(request)
            code, detail = "method_not_allowed", f"{path} takes {allowed}, not {method}."
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            code, detail = "too_large", error.detail
        case _:
            code, detail = status.name.lower(), str(error.detail)
    return problem(request.scope, status=status, code=code, detail=detail, headers=headers)


def _allowed(request: Request) -> str:
    # Starlette tells the methods of one route; a path may have several.
    return ", ".join(
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    )


def _describe(item: Mapping[str, Any]) -> ProblemError:
    location, *path = item["loc"]
    kind = item["type"]
    if kind == "json_invalid":
        # The path is a position in the text here.
        where = f" at character {path[0]}" if path else ""
        detail = f"the body is not JSON{where}: {item.get('ctx', {}).get('error', '')}"
        return ProblemError(location=location, pointer="#", detail=detail.rstrip(": "))
    return ProblemError(location=location, pointer=_pointer(path), detail=_explain(kind, item))


def _explain(kind: str, item: Mapping[str, Any]) -> str:
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not known here"
        case "model_attributes_type" | "dict_type":
            return "expected a JSON object, sent with Content-Type: application/json"
    message: str = item["msg"]
    return message.removeprefix("Value error, ")


def _pointer(path: Sequence[str | int]) -> str:
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "".join(["#", *(f"/{step}" for step in steps)])


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of `app`, with the schema of `Problem` in it."""
    if app.openapi_schema is None:
        schema = FastAPI.openapi(app)
        shape = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        nested = shape.pop("$defs")
        schema.setdefault("components", {}).setdefault("schemas", {}).update(
            nested | {"Problem": shape}
        )
    return app.openapi_schema or {}


DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Refused; the problem says why.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
"""What every operation may answer, for the OpenAPI document."""
