"""What the domain can refuse.

DaybookError
├── NotFound      the thing asked for does not exist         api: 404   worker: stop
├── Conflict      it exists, in a state that forbids this    api: 409   worker: stop
├── Outdated      it has changed since the caller looked     api: 412   worker: stop
├── Invalid       the request breaks a business rule         api: 422   worker: stop
└── Unavailable   something we depend on is down             api: 503   worker: retry, with backoff
"""

from typing import ClassVar


class DaybookError(Exception):
    """A refusal with a meaning; `code` is stable, for callers to match on.

    `field` names the culprit within what was asked, where there is one: `date`,
    `items/0/product_id`.
    """

    code: ClassVar[str] = "error"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class NotFound(DaybookError):
    """The thing asked for does not exist."""

    code = "not_found"


class Conflict(DaybookError):
    """The thing asked for exists, in a state that forbids what was asked."""

    code = "conflict"


class Outdated(DaybookError):
    """The thing asked for has changed since the caller looked at it."""

    code = "outdated"


class Invalid(DaybookError):
    """The request breaks a business rule."""

    code = "invalid"


class Unavailable(DaybookError):
    """Something that we depend on is down; trying again later may help."""

    code = "unavailable"
