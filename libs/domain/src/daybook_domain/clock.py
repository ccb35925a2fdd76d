"""What time is it? The database's clock decides, so that skewed hosts agree on leases and fires."""

from datetime import UTC, datetime

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession


async def now(session: AsyncSession) -> datetime:
    """Return the present instant (UTC), which moves on within a transaction too."""
    instant: datetime = (await session.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return instant.astimezone(UTC)
