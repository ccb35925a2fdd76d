"""A movable database clock, and selections of time zones.

All services read the time from the database, so moving its clock moves the time of all of them
together. A `clock_timestamp()` in a schema that precedes `pg_catalog` in the search path adds an
offset that the test sets.
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from daybook_platform.postgres.engine import async_url

SCHEMA = """
CREATE SCHEMA test_clock;
CREATE TABLE test_clock.setting (ahead interval NOT NULL);
INSERT INTO test_clock.setting VALUES ('0');
CREATE FUNCTION test_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT pg_catalog.clock_timestamp() + ahead FROM test_clock.setting';
"""


class MovableClock:
    """The movable clock of one database."""

    def __init__(self, url: str) -> None:
        """Refer to the database at `url`; `install` makes its clock movable."""
        self._url = url
        self._engine: AsyncEngine = create_async_engine(async_url(url), poolclass=NullPool)

    async def install(self) -> None:
        """Make the clock movable for connections that are opened afterwards."""
        database = make_url(self._url).database
        async with self._engine.begin() as connection:
            for statement in filter(None, map(str.strip, SCHEMA.split(";\n"))):
                await connection.execute(text(statement))
            await connection.execute(
                text(
                    f'ALTER DATABASE "{database}" SET search_path = test_clock, pg_catalog, public'
                )
            )

    async def now(self) -> datetime:
        """Return the current time as the services read it."""
        async with self._engine.connect() as connection:
            instant: datetime = (
                await connection.execute(text("SELECT clock_timestamp()"))
            ).scalar_one()
        return instant.astimezone(UTC)

    async def set(self, instant: datetime) -> None:
        """Set the clock to `instant`, from which it continues to run."""
        async with self._engine.begin() as connection:
            await connection.execute(
                text(
                    "UPDATE test_clock.setting SET ahead = :instant - pg_catalog.clock_timestamp()"
                ),
                {"instant": instant},
            )

    async def step(self, by: timedelta) -> None:
        """Move the clock forward, or back if `by` is negative."""
        async with self._engine.begin() as connection:
            await connection.execute(
                text("UPDATE test_clock.setting SET ahead = ahead + :by"), {"by": by}
            )


def sample_zones(count: int) -> list[str]:
    """Return `count` time zones, evenly spaced over the sorted names, the same on each call."""
    zones = sorted(available_timezones() - {"localtime", "Factory"})
    return zones[:: len(zones) // count][:count]


@lru_cache
def distinct_zones(first: date, last: date) -> list[str]:
    """Return one zone name for each distinct sequence of UTC offsets between the dates.

    Most of the 600 names are aliases of each other, or have had equal offsets since some date.
    """
    days = [first + timedelta(days=k) for k in range((last - first).days + 1)]
    noons = [datetime.combine(day, time(12), tzinfo=UTC) for day in days]
    by_clock: dict[tuple[timedelta | None, ...], str] = {}
    for name in sorted(available_timezones() - {"localtime"}):
        zone = ZoneInfo(name)
        by_clock.setdefault(tuple(noon.astimezone(zone).utcoffset() for noon in noons), name)
    return list(by_clock.values())
