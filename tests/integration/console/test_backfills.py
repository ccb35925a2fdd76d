"""Can an operator have a range built by command, and follow it?"""

import asyncio
import json
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from daybook_console.main import app
from daybook_domain.runs.models import RunState
from daybook_platform.postgres.engine import Sessions
from tests.support import backfills, runs
from tests.support.processes import Service
from tests.support.waiting import until

Daybook = Callable[..., Coroutine[Any, Any, Result]]

RANGE = ("--from", "2026-03-01", "--to", "2026-03-03")


@pytest.fixture
def daybook(postgres_url: str, no_runs: None) -> Daybook:
    """Return the command line, on the tests' database."""
    runner = CliRunner(env={"DAYBOOK_DATABASE_URL": postgres_url, "COLUMNS": "200"})

    async def run(*arguments: str) -> Result:
        # A command has an event loop of its own.
        return await asyncio.to_thread(runner.invoke, app, ["backfill", *arguments])

    return run


async def told(running: Coroutine[Any, Any, Result]) -> Any:
    result = await running
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def is_going(sessions: Sessions) -> None:
    await until(lambda: backfills.going(sessions), what="the backfill being asked for")


async def test_it_waits_for_the_end_and_tells_it(daybook: Daybook, sessions: Sessions) -> None:
    command = asyncio.create_task(told(daybook(*RANGE, "--reason", "an import", "--json")))
    await is_going(sessions)

    await backfills.to_its_end(sessions)

    ended = await command
    assert (ended["state"], ended["outcomes"]) == ("finished", {"succeeded": 3})
    assert (ended["reason"], ended["requested_by"]) == ("an import", "daybook backfill")


async def test_a_person_is_shown_first_what_it_is_and_how_far(
    daybook: Daybook, sessions: Sessions
) -> None:
    asked = await told(daybook(*RANGE, "--no-wait", "--json"))

    shown = await daybook("show", asked["id"])

    names = [line.split()[0] for line in shown.stdout.splitlines()]
    assert names[:7] == ["id", "from_date", "to_date", "mode", "state", "total", "done"]
    assert set(names) == set(asked)


async def test_a_failure_is_an_exit_code(daybook: Daybook, sessions: Sessions) -> None:
    command = asyncio.create_task(daybook(*RANGE, "--concurrency", "3"))
    await is_going(sessions)
    await backfills.advance(sessions)
    await backfills.work(sessions, ends=RunState.FAILED)
    await backfills.advance(sessions)

    result = await command

    assert result.exit_code == 1
    assert "{'failed': 3}" in result.stdout


async def test_a_dry_run_asks_for_nothing(daybook: Daybook, sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await backfills.seal(session, backfills.march(2))

    found = await told(daybook(*RANGE, "--dry-run", "--json"))
    shown = await daybook(*RANGE, "--dry-run")

    assert [day["verdict"] for day in found] == ["build", "skip: sealed", "build"]
    assert "skip: sealed" in shown.output
    assert await told(daybook("list", "--json")) == []


async def test_it_is_listed_paused_resumed_and_cancelled(
    daybook: Daybook, sessions: Sessions
) -> None:
    asked = await told(daybook(*RANGE, "--no-wait", "--json"))
    await backfills.advance(sessions)

    listed = await told(daybook("list", "--json"))
    states = [
        (await told(daybook(verb, asked["id"], "--json")))["state"]
        for verb in ("pause", "resume", "cancel", "show")
    ]
    days = await told(daybook("days", asked["id"], "--outcome", "cancelled", "--json"))
    table = await daybook("days", asked["id"])

    assert [backfill["id"] for backfill in listed] == [asked["id"]]
    assert states == ["paused", "running", "cancelled", "cancelled"]
    assert [day["report_date"] for day in days] == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert "cancelled" in table.output
    assert {run.state for run in await runs.everything(sessions)} == {RunState.CANCELLED}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "expected --from and --to"),
        (("--from", "2026-03-01"), 2, "expected --from and --to"),
        (("--from", "2026-03-02", "--to", "2026-03-01"), 1, "from: `from` (2026-03-02) is after"),
        (("--from", "2026-03-02", "--to", "2999-03-01"), 1, "to: 2999-03-01 is in the future"),
        ((*RANGE, "--concurrency", "0"), 1, "concurrency: 0 is not 1-100"),
        (("show", "00000000-0000-0000-0000-000000000001"), 1, "-000000000001 does not exist"),
    ],
)
async def test_a_refusal_says_why(
    daybook: Daybook, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = await daybook(*arguments)

    assert result.exit_code == code
    assert said in result.stderr


@pytest.mark.usefixtures("no_runs")
async def test_an_interrupt_leaves_it_running_and_says_so(
    postgres_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    with Service(
        ["daybook", "backfill", *RANGE],
        environment={"DAYBOOK_DATABASE_URL": postgres_url},
        log=tmp_path / "log",
    ) as command:
        await is_going(sessions)
        await until(
            lambda: asyncio.to_thread(lambda: ": 3 dates" in command.said()),
            what="its first word",
        )
        command.send(signal.SIGINT)
        code = await asyncio.to_thread(command.wait)

    assert code == 130
    assert "The backfill goes on. daybook backfill show " in command.said()
    assert await backfills.going(sessions)
