"""What do the benchmarks share?"""

import pytest

from daybook_platform import logging_setup


@pytest.fixture(scope="session", autouse=True)
def _only_tables() -> None:
    """Keep what goes well out of the log, which would stand between the tables."""
    logging_setup.configure(log_format="console", level="WARNING")
