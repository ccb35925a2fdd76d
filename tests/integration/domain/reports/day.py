"""The business day that the build tests use, and its orders."""

from datetime import UTC, date, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.reports.business_day import business_day
from tests.support.factories.shop import create_order

DAY = business_day(date(2026, 3, 29), timezone="Europe/Berlin")
NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)


async def place_order(engine: AsyncEngine, *quantities: int, at: datetime = NOON) -> int:
    """Commit an order with an item for each quantity, and return its id."""
    async with engine.begin() as connection:
        return await create_order(connection, created_at=at, quantities=quantities)
