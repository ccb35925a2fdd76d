"""Databases of the tests: empty or migrated ones, their locks and constraints."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from daybook_domain import migrations
from daybook_domain.tables import metadata
from daybook_platform.postgres import migrate
from daybook_platform.postgres.engine import async_url
from tests.support.waiting import wait_until

TEMPLATE_LOCK = 20_260_228
"""Key of the advisory lock of the test process that creates the template."""


@asynccontextmanager
async def temporary_database(server_url: str, *, name: str) -> AsyncIterator[str]:
    """Yield the URL of a new, empty database `name` on that server; drop it in the end."""
    async with _created(server_url, name=name, template="template1") as url:
        yield url


@asynccontextmanager
async def migrated_database(server_url: str, *, name: str) -> AsyncIterator[str]:
    """Yield the URL of a new database `name` with the latest schema; drop it in the end.

    It is a copy of a template, which is migrated once for all test processes of a server.
    """
    template = await _ensure_template(server_url)
    async with _created(server_url, name=name, template=template) as url:
        yield url


@asynccontextmanager
async def _created(server_url: str, *, name: str, template: str) -> AsyncIterator[str]:
    admin = _admin(server_url)
    async with admin.connect() as connection:
        await _drop(connection, name)
        await connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    try:
        yield _database_url(server_url, name)
    finally:
        async with admin.connect() as connection:
            await _drop(connection, name)
        await admin.dispose()


async def _ensure_template(server_url: str) -> str:
    """Return the name of the template; create it if no other process has done so."""
    template = f"daybook_template_{_digest_of_migrations()}"
    admin = _admin(server_url)
    async with admin.connect() as connection:
        # Released with the connection. On a session, because CREATE DATABASE needs autocommit.
        await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": TEMPLATE_LOCK})
        statement = text("SELECT 1 FROM pg_database WHERE datname = :name")
        if (await connection.execute(statement, {"name": template})).one_or_none() is None:
            unfinished = f"{template}_unfinished"
            await _drop(connection, unfinished)
            await connection.execute(text(f'CREATE DATABASE "{unfinished}"'))
            await migrate.upgrade(_database_url(server_url, unfinished))
            await connection.execute(text(f'ALTER DATABASE "{unfinished}" RENAME TO "{template}"'))
    await admin.dispose()
    return template


def _digest_of_migrations() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(migrations.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _admin(server_url: str) -> AsyncEngine:
    return create_async_engine(
        async_url(server_url), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )


def _database_url(server_url: str, name: str) -> str:
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


async def _drop(connection: AsyncConnection, name: str) -> None:
    await connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


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
