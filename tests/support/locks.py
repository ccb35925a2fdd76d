"""How does a test know that a transaction waits for another?"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.waiting import until


async def somebody_waits(engine: AsyncEngine, *, others: int = 0) -> None:
    """Wait until more than `others` transactions of this database wait for a lock."""

    async def found() -> bool:
        async with engine.connect() as connection:
            waiting = await connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )
        return bool(waiting > others)

    await until(found, what="a transaction that waits for a lock")
