"""Log lines about single rows that cannot be processed, for loops that go on with the next row."""

from functools import lru_cache

import structlog

log = structlog.stdlib.get_logger(__name__)


def report_row_error(row: str, error: Exception) -> None:
    """Log why `row`, such as `backfill 4f…`, cannot be processed; once for each row and reason.

    Loops meet the same row again every second.
    """
    _log_once(row, f"{type(error).__name__}: {error}".splitlines()[0][:500])


@lru_cache(maxsize=1000)
def _log_once(row: str, reason: str) -> None:
    log.error("row cannot be processed; the others proceed", row=row, reason=reason)


def forget() -> None:
    """Log the rows that were logged before again when they fail."""
    _log_once.cache_clear()
