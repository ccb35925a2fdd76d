"""Database access of commands, with domain errors shown as messages."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import typer
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.errors import DaybookError
from daybook_domain.postgres_errors import is_outage, is_schema_missing
from daybook_platform.postgres.engine import create_engine, create_sessions, dispose
from daybook_platform.postgres.sessions import Sessions
from daybook_platform.settings import DatabaseSettings, load

T = TypeVar("T")


@asynccontextmanager
async def open_sessions(url: str, *, application: str = "daybook") -> AsyncIterator[Sessions]:
    """Open a session factory with one connection to the database at `url`."""
    engine = create_engine(url, application=application, pool_size=1)
    try:
        yield create_sessions(engine, timeout=None)
    finally:
        await dispose(engine)


def describe_unavailability(error: Exception) -> str | None:
    """Return in one line why the database cannot be used; None for other errors."""
    if is_schema_missing(error):
        return "A table or column is missing in the database; run `daybook migrate`."
    if is_outage(error):
        cause = getattr(error, "orig", None) or error
        # asyncpg and SQLAlchemy append hints and the statement in further lines.
        lines = str(cause).strip().splitlines()
        detail = f": {lines[0]}" if lines else ""
        return f"Postgres (DAYBOOK_DATABASE_URL) is unavailable{detail}"
    return None


def run_in_transaction(work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Return the result of `work` in one transaction.

    A domain error is printed to standard error and ends the command with exit code 1.
    """
    url = load(DatabaseSettings).database_url.get_secret_value()

    async def run() -> T:
        async with open_sessions(url) as sessions, sessions.begin() as session:
            return await work(session)

    try:
        return asyncio.run(run())
    except DaybookError as error:
        field = getattr(error, "field", None)
        sys.stderr.write(f"{field}: {error.detail}\n" if field else f"{error.detail}\n")
        raise typer.Exit(1) from None
