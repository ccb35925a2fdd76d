"""Temporary databases, empty tables, and waits for blocked transactions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from daybook_domain.tables import metadata
from daybook_platform.postgres.engine import async_url
from tests.support.waiting import wait_until


@asynccontextmanager
async def temporary_database(server_url: str, *, name: str) -> AsyncIterator[str]:
    """Create the empty database `name`, yield its URL, and drop it at the end.

    An existing database of that name is dropped first.
    """
    admin = create_async_engine(
        async_url(server_url), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    async with admin.connect() as connection:
        await connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        await connection.execute(text(f'CREATE DATABASE "{name}"'))
    try:
        url = make_url(server_url).set(database=name)
        yield url.render_as_string(hide_password=False)
    finally:
        async with admin.connect() as connection:
            await connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        await admin.dispose()


async def truncate_tables(engine: AsyncEngine) -> None:
    """Truncate all tables and restart their identity columns at 1."""
    names = ", ".join(table.name for table in metadata.sorted_tables)
    async with engine.begin() as connection:
        await connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))


async def wait_for_blocked_transaction(engine: AsyncEngine, *, more_than: int = 0) -> None:
    """Wait until more than `more_than` transactions of this database wait for a lock."""

    async def is_blocked() -> bool:
        async with engine.connect() as connection:
            blocked = await connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )
        return bool(blocked > more_than)

    await wait_until(is_blocked, what="a transaction that waits for a lock")


@asynccontextmanager
async def added_constraint(engine: AsyncEngine, statement: str) -> AsyncIterator[None]:
    """Add a constraint with `ALTER TABLE … ADD CONSTRAINT …` for the duration of the block."""
    _, _, table, _, _, name, *_ = statement.split()
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    try:
        yield
    finally:
        async with engine.begin() as connection:
            await connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
