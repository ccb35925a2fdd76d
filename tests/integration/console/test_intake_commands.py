"""Do `daybook dead-letters …` and `daybook demo publish` do what they say?"""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner, Result

from daybook_console.main import app
from daybook_domain.intake.parsing import parse_delivery
from daybook_domain.intake.service import MessageOutcome
from daybook_platform.postgres.engine import Sessions
from tests.support.letters import retry, take
from tests.support.messages import books, order
from tests.support.producer import Producer
from tests.support.shop import open_shop

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def run(postgres_url: str) -> Run:
    """Return a way to run `daybook`."""

    async def run(*words: str, given: str = "", **environment: str) -> Result:
        settings = {"DAYBOOK_DATABASE_URL": postgres_url, "COLUMNS": "200"} | environment
        return await asyncio.to_thread(
            lambda: CliRunner().invoke(app, words, input=given, env=settings)
        )

    return run


@pytest.fixture
async def kept(engine: AsyncEngine, sessions: Sessions) -> None:
    await open_shop(engine)
    await take(
        sessions,
        *(parse_delivery("order", order(quantity=1001 + n)) for n in range(3)),
        parse_delivery("product", b"[red]nonsense"),
    )


async def test_letters_are_listed_for_people_and_for_programs(run: Run, kept: None) -> None:
    table = await run("dead-letters", "list")
    found = json.loads((await run("dead-letters", "list", "--queue", "order", "--json")).stdout)

    assert "[red]nonsense" in table.stdout
    assert [letter["id"] for letter in found] == [3, 2, 1]


async def test_a_letter_is_mended_and_processed(
    run: Run, kept: None, sessions: Sessions, engine: AsyncEngine
) -> None:
    body = order(quantity=5).decode()
    edited = await run("dead-letters", "edit", "1", "-", "--version", "1", given=body)
    late = await run("dead-letters", "edit", "1", "-", "--version", "1", given=body)
    redriven = await run("dead-letters", "redrive", "1", "--actor", "ada", "--note", "mended")

    assert edited.stdout == "Letter 1 has version 2.\n"
    assert (late.exit_code, "edited meanwhile" in late.stderr) == (1, True)
    assert redriven.stdout == "1 letters are being processed again.\n"
    assert await retry(sessions) == [MessageOutcome.APPLIED]
    assert (await books(engine)).stock == {1: 995}
    shown = json.loads((await run("dead-letters", "show", "1")).stdout)
    assert [action["actor"] for action in shown["actions"]][1:] == ["ada", "worker"]


async def test_many_are_redriven_only_when_it_was_said_which(run: Run, kept: None) -> None:
    nothing = await run("dead-letters", "redrive")
    dry = await run("dead-letters", "redrive", "--queue", "order", "--dry-run")
    done = await run("dead-letters", "redrive", "--all", "--rate", "100")

    assert nothing.exit_code == 2
    assert dry.stdout == "3 letters would be processed again.\n"
    assert done.stdout == "4 letters are being processed again.\n"


async def test_a_letter_is_discarded(run: Run, kept: None, engine: AsyncEngine) -> None:
    assert (await run("dead-letters", "discard", "4")).exit_code == 2
    assert (await run("dead-letters", "discard", "4", "--note", "a test")).exit_code == 0
    assert (await run("dead-letters", "redrive", "4")).exit_code == 1
    assert (await books(engine)).letters["discarded"] == [("product", "malformed")]


async def test_the_contract_is_printed(run: Run) -> None:
    assert json.loads((await run("asyncapi")).stdout)["asyncapi"] == "3.0.0"


@pytest.mark.rabbitmq
async def test_the_demo_sends_orders(run: Run, rabbitmq_url: str, clean: None) -> None:
    words = ("demo", "publish", "--orders", "30", "--products", "5", "--duplicates", "100")
    async with Producer.connected(rabbitmq_url) as producer:
        await producer.purge()
        sent = await run(*words, DAYBOOK_BROKER_URL=rabbitmq_url)
        assert sent.stdout == "65 messages sent and confirmed.\n", sent.stderr
        assert (await producer.depth("order"), await producer.depth("product")) == (60, 5)

        await producer.channel.queue_delete("order")
        lost = await run(*words, DAYBOOK_BROKER_URL=rabbitmq_url)

    assert lost.exit_code == 1
    assert "no queue 'order'" in lost.stderr


async def test_the_demo_says_when_rabbitmq_is_away(run: Run, clean: None) -> None:
    gone = await run("demo", "publish", DAYBOOK_BROKER_URL="amqp://guest@127.0.0.1:1/")
    wrong = await run("demo", "publish", DAYBOOK_BROKER_URL="redis://localhost/0")

    assert (gone.exit_code, "cannot be reached" in gone.stderr) == (1, True)
    assert (wrong.exit_code, "DAYBOOK_BROKER_URL" in wrong.stderr) == (2, True)
