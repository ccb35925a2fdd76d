"""`daybook dead-letters`, on a real database."""

import json

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.intake.parsing import parse_delivery
from daybook_domain.intake.service import MessageOutcome
from daybook_platform.postgres.sessions import Sessions
from tests.integration.console.conftest import RunCommand
from tests.support.factories.dead_letters import consume_batch, retry_due_dead_letters
from tests.support.factories.messages import order_message
from tests.support.factories.shop import reset_shop
from tests.support.oracles.shop_state import get_shop_state


@pytest.fixture
async def four_dead_letters(engine: AsyncEngine, sessions: Sessions) -> None:
    await reset_shop(engine)
    await consume_batch(
        sessions,
        *(parse_delivery("order", order_message(quantity=1001 + n)) for n in range(3)),
        parse_delivery("product", b"[red]nonsense"),
    )


@pytest.mark.usefixtures("four_dead_letters")
async def test_dead_letters_are_listed_as_a_table_and_as_json(run_command: RunCommand) -> None:
    table = await run_command("dead-letters", "list")
    as_json = await run_command("dead-letters", "list", "--queue", "order", "--json")

    assert "[red]nonsense" in table.stdout
    assert [letter["id"] for letter in json.loads(as_json.stdout)["dead_letters"]] == [3, 2, 1]


@pytest.mark.usefixtures("four_dead_letters")
async def test_a_dead_letter_is_edited_and_redriven(
    run_command: RunCommand, sessions: Sessions, engine: AsyncEngine
) -> None:
    edit = ("dead-letters", "edit", "1", "-", "--version", "1")
    body = order_message(quantity=5).decode()
    edited = await run_command(*edit, stdin=body)
    stale = await run_command(*edit, stdin=body)
    redriven = await run_command(
        "dead-letters", "redrive", "1", "--actor", "ada", "--note", "corrected"
    )

    assert edited.stdout == "Dead letter 1 now has version 2.\n"
    assert (stale.exit_code, "has version 2, expected 1" in stale.stderr) == (1, True)
    assert redriven.stdout == "Redriving 1 dead letters.\n"
    assert await retry_due_dead_letters(sessions) == [MessageOutcome.APPLIED]
    assert (await get_shop_state(engine)).stock == {1: 995}
    shown = json.loads((await run_command("dead-letters", "show", "1")).stdout)
    assert [action["actor"] for action in shown["actions"]][1:] == ["ada", "worker"]


@pytest.mark.usefixtures("four_dead_letters")
async def test_a_redrive_of_many_requires_a_filter_or_all(run_command: RunCommand) -> None:
    unfiltered = await run_command("dead-letters", "redrive")
    dry = await run_command("dead-letters", "redrive", "--queue", "order", "--dry-run")
    redriven = await run_command("dead-letters", "redrive", "--all", "--rate", "100")

    assert unfiltered.exit_code == 2
    assert dry.stdout == "Would redrive 3 dead letters.\n"
    assert redriven.stdout == "Redriving 4 dead letters.\n"


@pytest.mark.usefixtures("four_dead_letters")
async def test_a_dead_letter_is_discarded(run_command: RunCommand, engine: AsyncEngine) -> None:
    discard = ("dead-letters", "discard", "4")

    assert (await run_command(*discard)).exit_code == 2
    assert (await run_command(*discard, "--note", "a test")).exit_code == 0
    assert (await run_command("dead-letters", "redrive", "4")).exit_code == 1
    assert (await get_shop_state(engine)).dead_letters["discarded"] == [("product", "malformed")]


async def test_a_dead_letter_with_deeply_nested_headers_is_shown(
    run_command: RunCommand, engine: AsyncEngine
) -> None:
    await reset_shop(engine)
    async with engine.begin() as connection:
        # As stored by a release that did not limit the depth.
        await connection.execute(
            text(
                "INSERT INTO dead_letters (queue, body, headers, reason_code, reason, attempts,"
                " begun, first_failed_at, last_failed_at, state, version)"
                " VALUES ('order', '?', CAST(:headers AS jsonb), 'malformed', '?', 1, 0, now(),"
                " now(), 'kept', 1)"
            ),
            {"headers": '{"a": ' + "[" * 300 + "]" * 300 + "}"},
        )

    shown = await run_command("dead-letters", "show", "1")
    listed = await run_command("dead-letters", "list", "--json")

    assert "nested too deeply" in shown.stdout, shown.stdout + shown.stderr
    # As in the API, a list has no headers.
    assert [letter["id"] for letter in json.loads(listed.stdout)["dead_letters"]] == [1]
