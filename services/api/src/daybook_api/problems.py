"""Problem documents (RFC 9457), the body of every error response."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus

from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.types import Scope

from daybook_api.error_statuses import status_of
from daybook_domain.errors import (
    DaybookError,
    Invalid,
)

MEDIA_TYPE = "application/problem+json"


class HttpProblemCode(StrEnum):
    """The `code` of a problem that no error class stands for, because HTTP itself defines it."""

    INVALID_REQUEST = "invalid_request"
    NO_SUCH_PATH = "no_such_path"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    TOO_LARGE = "too_large"
    INTERNAL_ERROR = "internal_error"
    NOT_READY = "not_ready"


RETRY_AFTER = {"Retry-After": "2"}


class ProblemError(BaseModel):
    """One invalid part of a request."""

    location: str = Field(
        description="The part of the request: `body`, `query`, `path` or `header`."
    )
    pointer: str = Field(
        description="A JSON pointer (RFC 6901) into that part, as a URI fragment: `#/date`."
    )
    detail: str = Field(description="What is wrong, and what was expected.")


class Problem(BaseModel):
    """The reason why a request failed (RFC 9457)."""

    type: str = Field(description="The path of the description of the kind of problem. Stable.")
    title: str = Field(description="The reason phrase of the HTTP status.")
    status: int = Field(description="The HTTP status code.")
    detail: str = Field(description="A human-readable explanation of this occurrence.")
    code: str = Field(description="A short identifier of the kind of problem. Stable.")
    errors: list[ProblemError] = Field(
        default=[], description="The invalid parts of the request, one item each."
    )
    request_id: str = Field(
        description="The id of this request in the logs; also sent as `X-Request-ID`."
    )


def problem_type(code: str) -> str:
    """Return the URI reference of the kind of problem `code`, where the API describes it."""
    return f"/problems/{code}"


def problem_response(
    scope: Scope,
    *,
    status: HTTPStatus,
    code: str,
    detail: str,
    errors: Sequence[ProblemError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a response with a problem document as its body."""
    # A detail may quote what the client sent, and JSON can express half of a surrogate pair.
    detail = _encodable(detail)
    errors = [
        error.model_copy(
            update={"detail": _encodable(error.detail), "pointer": _encodable(error.pointer)}
        )
        for error in errors
    ]
    body = Problem(
        type=problem_type(code),
        title=status.phrase,
        status=status.value,
        detail=detail,
        code=code,
        errors=errors,
        request_id=scope["state"]["request_id"],
    )
    return Response(
        body.model_dump_json(),
        status_code=status.value,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def response_to_error(scope: Scope, error: DaybookError) -> Response:
    """Return the response to an error with a meaning."""
    status = status_of(type(error))
    errors = []
    if error.field is not None:
        location = "body" if scope["method"] in {"POST", "PUT", "PATCH"} else "query"
        pointer = json_pointer(error.field.split("/"))
        errors = [ProblemError(location=location, pointer=pointer, detail=error.detail)]
    # One code for invalid input, whether a field or a rule of the domain refuses it.
    code = HttpProblemCode.INVALID_REQUEST if error.code == Invalid.code else error.code
    headers = RETRY_AFTER if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    return problem_response(
        scope, status=status, code=code, detail=error.detail, errors=errors, headers=headers
    )


def json_pointer(path: Sequence[str | int]) -> str:
    """Return `path` as a JSON pointer in a URI fragment (RFC 6901 section 6)."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "".join(["#", *(f"/{step}" for step in steps)])
