"""What do the scheduler's tests share?"""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.scheduler.loops import Loops


@pytest.fixture
def loops(engine: AsyncEngine, no_runs: None) -> Loops:
    """Return a maker of scheduler loops on an empty database."""
    return Loops(engine)
