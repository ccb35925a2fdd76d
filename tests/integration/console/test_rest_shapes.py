"""`--json` prints what the REST API returns for the same thing."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api.main import build_app
from daybook_api.runs.schemas import RunRequested
from daybook_api.settings import ApiSettings
from daybook_domain.intake.parsing import parse_delivery
from daybook_platform.postgres.sessions import Sessions
from tests.integration.api.conftest import serve
from tests.integration.console.conftest import RunCommand
from tests.support.factories.backfills import finish_backfills, march
from tests.support.factories.dead_letters import consume_batch
from tests.support.factories.messages import order_message
from tests.support.factories.schedules import (
    MIDNIGHT,
    create_schedule,
    materialize_due_fires,
    update_schedule_row,
)
from tests.support.factories.shop import reset_shop

pytestmark = pytest.mark.usefixtures("no_runs")


@pytest.fixture
async def api(postgres_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an API on the tests' database."""
    settings = ApiSettings.model_validate({"database_url": postgres_url})
    async with serve(build_app(settings)) as client:
        yield client


async def get(api: httpx.AsyncClient, path: str) -> Any:
    return (await api.get(path)).raise_for_status().json()


async def read(run_command: RunCommand, *arguments: str) -> Any:
    result = await run_command(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_schedules_and_fires(
    api: httpx.AsyncClient, run_command: RunCommand, sessions: Sessions
) -> None:
    await create_schedule(sessions, "tokyo", now=MIDNIGHT, timezone="Asia/Tokyo")
    await update_schedule_row(sessions, "tokyo", next_fire_at=MIDNIGHT)
    await materialize_due_fires(sessions, now=MIDNIGHT)
    await create_schedule(sessions, "yearly", now=datetime.now(UTC), cron="0 0 29 2 *")
    listed = await get(api, "/schedules")
    tokyo, yearly = listed["schedules"]

    assert await read(run_command, "schedules", "list") == {"schedules": listed["schedules"]}
    assert await read(run_command, "schedules", "show", "tokyo") == tokyo
    for name, schedule_id in (("tokyo", tokyo["id"]), ("yearly", yearly["id"])):
        fires = await get(api, f"/schedules/{schedule_id}/fires")
        del fires["next"]
        assert await read(run_command, "schedules", "fires", name) == fires


async def test_a_preview(api: httpx.AsyncClient, run_command: RunCommand) -> None:
    path = "/schedules/preview?cron=30%202%20*%20*%20*&timezone=Europe/Berlin&count=3"
    of_the_api = await get(api, path)
    command = ("schedules", "preview", "30 2 * * *", "--timezone", "Europe/Berlin", "--count", "3")
    printed = await read(run_command, *command)

    # The ends of the searches are a few milliseconds apart.
    assert printed.pop("until")[:10] == of_the_api.pop("until")[:10]
    assert printed == of_the_api


async def test_a_triggered_run(run_command: RunCommand, sessions: Sessions) -> None:
    await create_schedule(sessions, "tokyo", now=MIDNIGHT)

    printed = await read(run_command, "schedules", "trigger", "tokyo")

    assert printed.keys() == RunRequested.model_fields.keys()


async def test_backfills(
    api: httpx.AsyncClient, run_command: RunCommand, sessions: Sessions
) -> None:
    first, last = march(1), march(3)
    days = {"from": str(first), "to": str(last)}
    dates = ("--from", str(first), "--to", str(last))
    preview = await api.post("/report/runs", json=days | {"dry_run": True})
    assert await read(run_command, "backfill", *dates, "--dry-run") == preview.json()

    requested = await read(run_command, "backfill", *dates, "--no-wait")
    await finish_backfills(sessions)
    path = f"/report/backfills/{requested['id']}"

    shown = await read(run_command, "backfill", "show", requested["id"])
    assert shown == await get(api, path)
    assert await read(run_command, "backfill", "list") == {"backfills": [shown]}
    found = await get(api, f"{path}/days")
    assert await read(run_command, "backfill", "days", requested["id"]) == {"days": found["days"]}


async def test_dead_letters(
    api: httpx.AsyncClient, run_command: RunCommand, sessions: Sessions, engine: AsyncEngine
) -> None:
    await reset_shop(engine)
    headers = {"from": "there"}
    await consume_batch(
        sessions, parse_delivery("order", order_message(quantity=2000), headers=headers)
    )
    await consume_batch(sessions, parse_delivery("order", b"\xff\x00" * 300))
    listed = (await get(api, "/dead-letters"))["dead_letters"]

    assert await read(run_command, "dead-letters", "list") == {"dead_letters": listed}
    for letter in listed:
        shown = await run_command("dead-letters", "show", str(letter["id"]))
        assert json.loads(shown.stdout) == await get(api, f"/dead-letters/{letter['id']}")
