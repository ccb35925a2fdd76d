"""Fixtures of the scheduler's tests."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.scheduler.loops import LoopFactory


@pytest.fixture
def loops(engine: AsyncEngine, no_runs: None) -> LoopFactory:
    """Return a factory of scheduler loops, on a database without runs."""
    return LoopFactory(engine)
