"""Fixtures of the report tests."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.factories.shop import reset_shop


@pytest.fixture
async def shop(engine: AsyncEngine) -> None:
    """Empty the database, then add a user, an address and a product."""
    await reset_shop(engine)
