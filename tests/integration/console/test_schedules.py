"""`daybook schedules`, on a real database."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from daybook_console.main import app
from daybook_domain.schedules.definitions import ScheduleDefinition
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.schedules import (
    MIDNIGHT,
    create_schedule,
    define_daily_schedule,
    materialize_due_fires,
    update_schedule_row,
)

Daybook = Callable[..., Awaitable[Result]]

SHOWN = [
    *("name", "cron", "timezone", "report_offset_days", "next_fire_at", "next_report_date"),
    *("last_fire_at", "enabled", "paused_at", "note", "error"),
    *("catchup", "catchup_window_seconds", "overlap", "jitter_seconds", "pause_on_failure"),
    *("id", "origin", "version", "created_at", "updated_at"),
]
"""Fields of a schedule in their printed order."""


@pytest.fixture
def daybook(postgres_url: str, no_runs: None) -> Daybook:
    """Return a function that runs `daybook schedules` on the tests' database."""
    runner = CliRunner(env={"DAYBOOK_DATABASE_URL": postgres_url})

    async def run(*arguments: str, columns: int = 200) -> Result:
        # In a thread, because a command starts its own event loop.
        words, terminal = ["schedules", *arguments], {"COLUMNS": str(columns)}
        return await asyncio.to_thread(partial(runner.invoke, app, words, env=terminal))

    return run


async def read_json(running: Awaitable[Result]) -> Any:
    result = await running
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


async def test_a_list_has_one_whole_line_for_each_row_in_a_narrow_terminal(
    daybook: Daybook,
) -> None:
    added = await read_json(
        daybook(
            "add", "workdays", "--cron", "0 9 * * MON-FRI", "--timezone", "Asia/Tokyo", "--json"
        )
    )
    listed = await daybook("list", columns=60)

    header, row = listed.output.splitlines()
    due = added["next_fire_at"].replace("T", " ").replace("Z", "+00:00")
    assert header.split()[:4] == ["id", "name", "cron", "timezone"]
    assert re.split(" {2,}", row) == [
        *(str(added["id"]), "workdays", "0 9 * * MON-FRI", "Asia/Tokyo", "True", due)
    ]


async def test_a_schedule_is_added_edited_paused_triggered_resumed_and_removed(
    daybook: Daybook,
) -> None:
    added = await read_json(
        daybook("add", "workdays", "--cron", "0 9 * * MON-FRI", "--jitter-seconds", "60", "--json")
    )
    edited = await read_json(
        daybook("edit", "workdays", "--overlap", "skip", "--pause-on-failure", "--json")
    )
    paused = await read_json(daybook("pause", "workdays", "--note", "freeze", "--json"))
    listed = await read_json(daybook("list", "--json"))
    triggered = await read_json(daybook("trigger", "workdays", "--json"))
    resumed = await read_json(daybook("resume", "workdays", "--mode", "catchup", "--json"))
    removed = await daybook("remove", "workdays")

    assert (added["timezone"], added["jitter_seconds"], added["version"]) == ("UTC", 60, 1)
    assert (edited["overlap"], edited["pause_on_failure"]) == ("skip", True)
    assert edited["jitter_seconds"] == 60
    assert (paused["enabled"], paused["note"]) == (False, "freeze")
    assert [schedule["name"] for schedule in listed["schedules"]] == ["workdays"]
    assert (triggered["state"], triggered["joined"]) == ("pending", False)
    assert (resumed["enabled"], resumed["note"]) == (True, None)
    assert (removed.exit_code, removed.output) == (0, "Schedule workdays is removed.\n")
    assert await read_json(daybook("list", "--json")) == {"schedules": []}


async def test_a_second_pause_without_a_note_leaves_the_first_note(
    daybook: Daybook, sessions: Sessions
) -> None:
    await define_daily_schedule(sessions)
    notes = [
        (await read_json(daybook("pause", "daily", *options, "--json")))["note"]
        for options in (("--note", "freeze"), (), ("--note", "thaw"))
    ]

    assert notes == ["freeze", "freeze", "thaw"]


async def test_tables_show_schedules_and_fires(daybook: Daybook, sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    await update_schedule_row(sessions, next_fire_at=MIDNIGHT)
    await materialize_due_fires(sessions, now=MIDNIGHT)

    listed = await daybook("list")
    shown = await daybook("show", "daily")
    fires = await daybook("fires", "daily")

    assert "0 0 * * *" in listed.output
    assert [line.split()[0] for line in shown.output.splitlines()] == SHOWN
    definition = {field.name for field in fields(ScheduleDefinition)}
    assert definition <= {name.removesuffix("_seconds") for name in SHOWN}
    assert "buffer_one" in shown.output
    assert "2026-03-02 00:00:00+00:00" in fires.output
    assert "pending" in fires.output


async def test_a_preview_marks_gaps_and_folds(daybook: Daybook) -> None:
    found = await read_json(
        daybook("preview", "30 2 * * *", "--timezone", "Europe/Berlin", "--count", "366", "--json")
    )

    assert {fire["mark"] for fire in found["fires"]} == {None, "gap", "fold"}


async def test_the_fires_of_a_new_schedule_are_explained_as_by_the_api(
    daybook: Daybook, sessions: Sessions
) -> None:
    await create_schedule(sessions, "yearly", now=datetime.now(UTC), cron="0 0 29 2 *")

    shown = await daybook("fires", "yearly")
    filtered = await read_json(daybook("fires", "yearly", "--outcome", "missed", "--json"))

    assert shown.output.startswith("No fire of '0 0 29 2 *' in UTC was due in the range; the next")
    assert filtered == {"fires": [], "note": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "x", "--cron", "61 * * * *"), "cron: minute: 61 is not 0-59 (position 1)\n"),
        (("preview", "0 24 * * *"), "cron: hour: 24 is not 0-23 (position 3)\n"),
        (("pause", "x"), "A schedule named x does not exist.\n"),
        (("edit", "daily", "--cron", "0 1 * * *"), "DAYBOOK_DAILY_CRON"),
    ],
)
async def test_an_error_prints_its_reason_and_exits_with_1(
    daybook: Daybook, sessions: Sessions, arguments: tuple[str, ...], message: str
) -> None:
    await define_daily_schedule(sessions)

    result = await daybook(*arguments)

    assert result.exit_code == 1
    assert message in result.stderr
