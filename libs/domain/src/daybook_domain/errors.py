"""Errors of the domain, by meaning.

DaybookError
├── NotFound      the requested object does not exist             api: 404   worker: fail
├── Conflict      the object's state does not permit the request  api: 409   worker: fail
├── Outdated      the object changed after the caller read it     api: 412   worker: fail
├── Invalid       the request violates a business rule            api: 422   worker: fail
└── Unavailable   a service that we depend on does not respond    api: 503   worker: retry

Features subclass these. The api maps them to `application/problem+json` (RFC 9457), the worker to
acknowledge, retry with backoff, or dead-letter. Every other exception is a bug.
"""

from typing import ClassVar


class DaybookError(Exception):
    """A request that cannot be fulfilled; `code` is stable, so that callers can match on it.

    `field` is the path of the invalid value within the request, if the error concerns a single
    one: `date`, `items/0/product_id`.
    """

    code: ClassVar[str] = "error"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class NotFound(DaybookError):
    """The requested object does not exist."""

    code = "not_found"


class Conflict(DaybookError):
    """The requested object exists, in a state that does not permit the request."""

    code = "conflict"


class Outdated(DaybookError):
    """The requested object has changed after the caller read it."""

    code = "outdated"


class Invalid(DaybookError):
    """The request violates a business rule."""

    code = "invalid"


class Unavailable(DaybookError):
    """A service that we depend on does not respond; a later retry may succeed."""

    code = "unavailable"
