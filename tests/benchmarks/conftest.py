"""Fixtures of the benchmarks."""

import pytest

from daybook_platform import logging_setup


@pytest.fixture(scope="session", autouse=True)
def _log_warnings_only() -> None:
    """Log only warnings, so that no log line appears between the tables."""
    logging_setup.configure(log_format="console", level="WARNING")
