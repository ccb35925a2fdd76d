"""Fixtures of the report tests."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.shop import open_shop


@pytest.fixture
async def shop(engine: AsyncEngine) -> None:
    """Empty the database, then add a user, an address and a product."""
    await open_shop(engine)
