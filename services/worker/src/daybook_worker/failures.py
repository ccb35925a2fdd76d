"""Classification of the errors that a build raises."""

from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from daybook_domain.errors import DaybookError, Unavailable
from daybook_domain.postgres_errors import get_sqlstate, is_lock_conflict, is_outage

_MAX_CODE_LENGTH = 100
_MAX_DETAIL_LENGTH = 2000
_TIMEOUT_STATES = {
    "25P03",  # idle in transaction timeout
    "57014",  # query cancelled, such as by a statement timeout
}


class BuildTimeout(Unavailable):
    """A build that exceeded the timeout of its task; a retry may find the server less busy."""

    code = "timeout"


@dataclass(frozen=True)
class BuildFailure:
    """The cause of a failed build, and its consequence for the run and for the message."""

    code: str
    detail: str
    retryable: bool
    is_outage: bool
    """The database was unavailable: the attempt is not counted."""
    is_bug: bool
    """The error is unexpected: the message is dead-lettered as evidence."""


def classify_failure(error: Exception) -> BuildFailure:
    """Return the failure to record for an error that a build raised."""
    if is_outage(error):
        return BuildFailure(
            Unavailable.code,
            _detail(error),
            retryable=True,
            is_outage=not _is_of_the_build(error),
            is_bug=False,
        )
    if isinstance(error, DaybookError):
        retryable = isinstance(error, Unavailable)
        return BuildFailure(
            error.code, _detail(error), retryable=retryable, is_outage=False, is_bug=False
        )
    return BuildFailure(
        type(error).__name__[:_MAX_CODE_LENGTH],
        _detail(error),
        retryable=True,
        is_outage=False,
        is_bug=True,
    )


def _is_of_the_build(error: Exception) -> bool:
    """Return whether the database was available, and ended this build.

    A conflict or a timeout may repeat with every attempt, so these are counted.
    """
    return is_lock_conflict(error) or get_sqlstate(error) in _TIMEOUT_STATES


def _detail(error: Exception) -> str:
    # Without the SQL statement, which SQLAlchemy adds to the text.
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return (str(cause) or repr(cause))[:_MAX_DETAIL_LENGTH]
