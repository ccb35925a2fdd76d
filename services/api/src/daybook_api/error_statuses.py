"""HTTP statuses of the errors of the domain and the API."""

from http import HTTPStatus

from daybook_api.errors import NotAcceptable, PreconditionRequired
from daybook_domain.errors import Conflict, DaybookError, Invalid, NotFound, Outdated, Unavailable

STATUS_BY_ERROR: dict[type[DaybookError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    Conflict: HTTPStatus.CONFLICT,
    Outdated: HTTPStatus.PRECONDITION_FAILED,
    PreconditionRequired: HTTPStatus.PRECONDITION_REQUIRED,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


def status_of(error_type: type[DaybookError]) -> HTTPStatus:
    """Return the HTTP status of an error class, which is that of its nearest listed ancestor.

    Raises `StopIteration` for a class without such an ancestor: no endpoint may raise it.
    """
    return next(STATUS_BY_ERROR[kind] for kind in error_type.__mro__ if kind in STATUS_BY_ERROR)
