"""What do tests of runs share?"""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine


@pytest.fixture
async def no_runs(engine: AsyncEngine) -> None:
    """Begin without schedules, runs and days; deleting a few rows is faster than TRUNCATE."""
    async with engine.begin() as connection:
        for table in ("report_runs", "taskiq_entries", "schedules", "report_days", "backfills"):
            await connection.execute(text(f"DELETE FROM {table}"))
