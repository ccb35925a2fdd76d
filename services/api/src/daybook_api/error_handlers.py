"""Handlers that turn exceptions into problem documents."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from daybook_api import routes
from daybook_api.problems import (
    HttpProblemCode,
    ProblemError,
    json_pointer,
    problem_response,
    response_to_error,
)
from daybook_domain.errors import DaybookError, Unavailable
from daybook_domain.postgres_errors import is_outage

log = structlog.stdlib.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Register the handlers, so that every error response of `app` is a problem document."""
    app.add_exception_handler(DaybookError, _on_daybook_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)


def response_to_exception(scope: Scope, error: Exception) -> Response:
    """Return the response to an exception without a handler: a database outage, or a bug.

    A bug is logged with its traceback, which the client does not get.
    """
    if is_outage(error):
        log.warning("database unavailable", error=f"{type(error).__name__}: {error}")
        return response_to_error(
            scope, Unavailable("The database cannot be reached; please try again.")
        )
    log.error("unhandled exception", exc_info=error)
    return problem_response(
        scope,
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        code=HttpProblemCode.INTERNAL_ERROR,
        detail="An unexpected error occurred; it is logged under the request id.",
    )


async def _on_daybook_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DaybookError)
    if isinstance(error, Unavailable):
        log.warning("dependency unavailable", detail=error.detail, error=repr(error.__cause__))
    return response_to_error(request.scope, error)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [_describe(item) for item in error.errors()]
    return problem_response(
        request.scope,
        status=HTTPStatus.UNPROCESSABLE_ENTITY,
        code=HttpProblemCode.INVALID_REQUEST,
        detail="; ".join(f"{item.pointer[2:] or item.location}: {item.detail}" for item in errors),
        errors=errors,
    )


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    path, method = request.url.path, request.method
    headers = dict(error.headers or {})
    code: str
    match status:
        case HTTPStatus.BAD_REQUEST:
            # FastAPI could not decode the body.
            status, code = HTTPStatus.UNPROCESSABLE_ENTITY, HttpProblemCode.INVALID_REQUEST
            detail = f"body: {error.detail}"
        case HTTPStatus.NOT_FOUND:
            code = HttpProblemCode.NO_SUCH_PATH
            detail = f"No resource at {path}; see /docs for all paths."
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = headers["Allow"] = routes.allowed_methods(request.app.state.routes, path)
            code = HttpProblemCode.METHOD_NOT_ALLOWED
            detail = f"{path} supports {allowed}, not {method}."
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            code, detail = HttpProblemCode.TOO_LARGE, error.detail
        case _:
            code, detail = status.name.lower(), str(error.detail)
    return problem_response(request.scope, status=status, code=code, detail=detail, headers=headers)


def _describe(item: Mapping[str, Any]) -> ProblemError:
    location, *path = item["loc"]
    kind = item["type"]
    if kind == "json_invalid":
        # The path of this kind is a position in the text.
        where = f" at character {path[0]}" if path else ""
        detail = f"the body is not JSON{where}: {item.get('ctx', {}).get('error', '')}"
        return ProblemError(location=location, pointer="#", detail=detail.rstrip(": "))
    return ProblemError(location=location, pointer=json_pointer(path), detail=_explain(kind, item))


def _explain(kind: str, item: Mapping[str, Any]) -> str:
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a known field or parameter"
        case "model_attributes_type" | "dict_type":
            return "expected a JSON object, sent with Content-Type: application/json"
    message: str = item["msg"]
    return message.removeprefix("Value error, ")
