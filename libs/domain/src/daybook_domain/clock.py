"""The database's clock, the only one: hosts with skewed clocks agree on leases and fires."""

from datetime import UTC, datetime

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession


async def now(session: AsyncSession) -> datetime:
    """Return the current instant (UTC); it advances within a transaction, unlike `now()` in SQL."""
    instant: datetime = (await session.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return instant.astimezone(UTC)
