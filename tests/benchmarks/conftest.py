"""What do the benchmarks share?"""

import pytest

from daybook_domain import logs


@pytest.fixture(scope="session", autouse=True)
def _only_tables() -> None:
    """Keep what goes well out of the log, which would stand between the tables."""
    logs.configure(log_format="console", level="WARNING")
