"""How does a test get a database that nobody else uses?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from daybook_domain.tables import metadata
from daybook_platform.postgres.engine import async_url


@asynccontextmanager
async def fresh_database(server_url: str, *, name: str) -> AsyncIterator[str]:
    """Yield the URL of a new, empty database `name` on that server; drop it in the end."""
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


async def empty(engine: AsyncEngine) -> None:
    """Empty all tables, and let their keys begin with 1 again."""
    names = ", ".join(table.name for table in metadata.sorted_tables)
    async with engine.begin() as connection:
        await connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))


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
