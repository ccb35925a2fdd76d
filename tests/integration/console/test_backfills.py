"""`daybook backfill`, on a real database."""

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
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.backfills import (
    advance_backfills,
    finish_backfills,
    finish_due_runs,
    has_unfinished_backfills,
    march,
    seal_day,
)
from tests.support.factories.runs import list_all_runs
from tests.support.processes import Service
from tests.support.waiting import wait_until

Daybook = Callable[..., Coroutine[Any, Any, Result]]

RANGE = ("--from", "2026-03-01", "--to", "2026-03-03")


@pytest.fixture
def daybook(postgres_url: str, no_runs: None) -> Daybook:
    """Return a function that runs `daybook backfill` on the tests' database."""
    runner = CliRunner(env={"DAYBOOK_DATABASE_URL": postgres_url, "COLUMNS": "40"})

    async def run(*arguments: str) -> Result:
        # In a thread, because a command starts its own event loop.
        return await asyncio.to_thread(runner.invoke, app, ["backfill", *arguments])

    return run


async def read_json(running: Coroutine[Any, Any, Result]) -> Any:
    result = await running
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def wait_for_backfill(sessions: Sessions) -> None:
    await wait_until(
        lambda: has_unfinished_backfills(sessions), what="the backfill being requested"
    )


async def test_the_command_waits_for_the_end_and_prints_the_backfill(
    daybook: Daybook, sessions: Sessions
) -> None:
    command = asyncio.create_task(read_json(daybook(*RANGE, "--reason", "an import", "--json")))
    await wait_for_backfill(sessions)

    await finish_backfills(sessions)

    ended = await command
    assert (ended["state"], ended["outcomes"]) == ("finished", {"succeeded": 3})
    assert (ended["reason"], ended["requested_by"]) == ("an import", "daybook backfill")


async def test_show_prints_identity_and_progress_first(
    daybook: Daybook, sessions: Sessions
) -> None:
    requested = await read_json(daybook(*RANGE, "--no-wait", "--json"))

    shown = await daybook("show", requested["id"])

    names = [line.split()[0] for line in shown.stdout.splitlines()]
    assert names[:7] == ["id", "from", "to", "mode", "state", "total", "done"]
    assert set(names) == set(requested)


async def test_a_failed_build_sets_the_exit_code(daybook: Daybook, sessions: Sessions) -> None:
    command = asyncio.create_task(daybook(*RANGE, "--concurrency", "3"))
    await wait_for_backfill(sessions)
    await advance_backfills(sessions)
    await finish_due_runs(sessions, final_state=RunState.FAILED)
    await advance_backfills(sessions)

    result = await command

    assert result.exit_code == 1
    assert "{'failed': 3}" in result.stdout


async def test_a_dry_run_requests_nothing(daybook: Daybook, sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await seal_day(session, march(2))

    found = await read_json(daybook(*RANGE, "--dry-run", "--json"))
    shown = await daybook(*RANGE, "--dry-run")

    assert [day["verdict"] for day in found["days"]] == ["build", "skip: sealed", "build"]
    assert "skip: sealed" in shown.output
    assert await read_json(daybook("list", "--json")) == {"backfills": []}


async def test_a_backfill_is_listed_paused_resumed_and_cancelled(
    daybook: Daybook, sessions: Sessions
) -> None:
    requested = await read_json(daybook(*RANGE, "--no-wait", "--json"))
    await advance_backfills(sessions)

    listed = await read_json(daybook("list", "--json"))
    states = [
        (await read_json(daybook(command, requested["id"], "--json")))["state"]
        for command in ("pause", "resume", "cancel", "show")
    ]
    days = await read_json(daybook("days", requested["id"], "--outcome", "cancelled", "--json"))
    table = await daybook("days", requested["id"])

    assert [backfill["id"] for backfill in listed["backfills"]] == [requested["id"]]
    assert states == ["paused", "running", "cancelled", "cancelled"]
    assert [day["report_date"] for day in days["days"]] == [
        "2026-03-01",
        "2026-03-02",
        "2026-03-03",
    ]
    assert "cancelled" in table.output
    assert requested["id"] in (await daybook("list")).output
    assert {run.state for run in await list_all_runs(sessions)} == {RunState.CANCELLED}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "expected --from and --to"),
        (("--from", "2026-03-01"), 2, "expected --from and --to"),
        (("--from", "2026-03-02", "--to", "2026-03-01"), 1, "from: `from` (2026-03-02) is after"),
        (("--from", "2026-03-02", "--to", "2999-03-01"), 1, "to: 2999-03-01 is in the future"),
        (("--from", "1026-03-01", "--to", "1026-03-02"), 1, "from: 1026-03-01 is out of range"),
        (
            ("--from", "1026-03-01", "--to", "1026-03-02", "--dry-run"),
            1,
            "from: 1026-03-01 is out of range",
        ),
        ((*RANGE, "--concurrency", "0"), 1, "concurrency: 0 is not 1-100"),
        (("show", "00000000-0000-0000-0000-000000000001"), 1, "-000000000001 does not exist"),
    ],
)
async def test_an_error_prints_its_reason(
    daybook: Daybook, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = await daybook(*arguments)

    assert result.exit_code == code
    assert message in result.stderr


@pytest.mark.usefixtures("no_runs")
async def test_an_interrupt_leaves_the_backfill_running_and_prints_that(
    postgres_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    with Service(
        ["daybook", "backfill", *RANGE],
        environment={"DAYBOOK_DATABASE_URL": postgres_url},
        log=tmp_path / "log",
    ) as command:
        await wait_for_backfill(sessions)
        await wait_until(
            lambda: asyncio.to_thread(lambda: ": 3 dates" in command.read_log()),
            what="the first line of output",
        )
        command.send(signal.SIGINT)
        code = await asyncio.to_thread(command.wait)

    assert code == 130
    assert "The backfill continues. daybook backfill show " in command.read_log()
    assert await has_unfinished_backfills(sessions)
