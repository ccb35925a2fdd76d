"""How does a test move the clock? Daybook has one, the database's, so it is moved there.

`clock_timestamp()` is found in a schema of our own before PostgreSQL's; it adds an offset that the
test sets. All services see the jump at once, as they would on a machine whose clock is set.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from daybook_platform.postgres.engine import async_url

SCHEMA = """
CREATE SCHEMA warp;
CREATE TABLE warp.setting (ahead interval NOT NULL);
INSERT INTO warp.setting VALUES ('0');
CREATE FUNCTION warp.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT pg_catalog.clock_timestamp() + ahead FROM warp.setting';
"""


class Clock:
    """The moved clock of one database."""

    def __init__(self, url: str) -> None:
        """Name the database; `install` makes its clock movable."""
        self._url = url
        self._engine: AsyncEngine = create_async_engine(async_url(url), poolclass=NullPool)

    async def install(self) -> None:
        """Make the clock movable for all connections that are opened from now on."""
        database = make_url(self._url).database
        async with self._engine.begin() as connection:
            for statement in filter(None, map(str.strip, SCHEMA.split(";\n"))):
                await connection.execute(text(statement))
            await connection.execute(
                text(f'ALTER DATABASE "{database}" SET search_path = warp, pg_catalog, public')
            )

    async def now(self) -> datetime:
        """Return what the services take for the present."""
        async with self._engine.connect() as connection:
            instant: datetime = (
                await connection.execute(text("SELECT clock_timestamp()"))
            ).scalar_one()
        return instant.astimezone(UTC)

    async def set(self, instant: datetime) -> None:
        """Let the present be `instant`; time goes on from there."""
        async with self._engine.begin() as connection:
            await connection.execute(
                text("UPDATE warp.setting SET ahead = :instant - pg_catalog.clock_timestamp()"),
                {"instant": instant},
            )

    async def step(self, by: timedelta) -> None:
        """Put the clock forward or back by so much."""
        async with self._engine.begin() as connection:
            await connection.execute(
                text("UPDATE warp.setting SET ahead = ahead + :by"), {"by": by}
            )
