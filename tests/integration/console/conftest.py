"""Command line of the console tests."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from typer.testing import CliRunner, Result

from daybook_console.main import app

RunCommand = Callable[..., Awaitable[Result]]


@pytest.fixture
def run_command(postgres_url: str) -> RunCommand:
    """Return a function that runs `daybook` on the tests' database."""

    async def run(*arguments: str, stdin: str = "", **environment: str) -> Result:
        settings = {"DAYBOOK_DATABASE_URL": postgres_url, "COLUMNS": "200"} | environment
        # In a thread, because a command starts its own event loop.
        return await asyncio.to_thread(
            lambda: CliRunner().invoke(app, arguments, input=stdin, env=settings)
        )

    return run
