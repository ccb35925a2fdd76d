"""How does a command ask the database, and what does a refusal look like?"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_console.settings import SchedulesSettings
from daybook_domain.db import create_engine, create_sessions
from daybook_domain.errors import DaybookError
from daybook_domain.settings import load

T = TypeVar("T")


def with_database(work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Return what `work` does in one transaction; a refusal ends the command with code 1."""
    url = load(SchedulesSettings).database_url.get_secret_value()

    async def run() -> T:
        engine = create_engine(url, application="daybook", pool_size=1)
        try:
            async with create_sessions(engine).begin() as session:
                return await work(session)
        finally:
            await engine.dispose()

    try:
        return asyncio.run(run())
    except DaybookError as error:
        field = getattr(error, "field", None)
        sys.stderr.write(f"{field}: {error.detail}\n" if field else f"{error.detail}\n")
        raise typer.Exit(1) from None
