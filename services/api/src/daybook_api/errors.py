"""Errors that only the HTTP interface raises."""

from daybook_domain.errors import DaybookError


class NotAcceptable(DaybookError):
    """The resource exists, but in none of the media types that the client accepts."""

    code = "not_acceptable"


class PreconditionRequired(DaybookError):
    """The request changes a resource without naming the version that the client has read."""

    code = "precondition_required"
