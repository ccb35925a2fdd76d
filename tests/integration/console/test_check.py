"""Does `daybook check` say how a live system is?"""

import asyncio

from typer.testing import CliRunner

from daybook_console.main import app
from daybook_domain.db import Sessions
from tests.support.schedules import MIDNIGHT, add, change


async def test_it_ends_with_1_and_says_what_is_wrong(
    sessions: Sessions, postgres_url: str, no_runs: None
) -> None:
    runner = CliRunner(env={"DAYBOOK_DATABASE_URL": postgres_url})
    good = await asyncio.to_thread(runner.invoke, app, ["check"])
    await add(sessions, "forgotten")
    await change(sessions, "forgotten", next_fire_at=MIDNIGHT)
    bad = await asyncio.to_thread(runner.invoke, app, ["check", "--days", "30"])

    assert (good.exit_code, good.output) == (0, "All is as it should be.\n")
    assert bad.exit_code == 1
    assert "schedule forgotten" in bad.output
