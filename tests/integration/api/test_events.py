"""Does everybody who wants to hear of changes, and cost nothing who does not listen?"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import text

from daybook_platform.postgres.engine import Sessions
from tests.integration.api.conftest import MakeDay
from tests.integration.api.serving import api_process
from tests.support import backfills, runs
from tests.support.logs import until_logged
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("clean")

LISTENING = "listening for changes"
"""What the API logs when nothing that is told from then on is missed."""

MANY = """
SELECT count(pg_notify('daybook_events',
    json_build_object('kind', 'day', 'k', :k * 1000 + n, 'filling', CAST(:filling AS text))::text))
FROM generate_series(1, 1000) AS n
"""


class Reader:
    """What one reader has got of `/events`."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def event(self) -> dict[str, Any]:
        """Return the next event that tells of something: its data, with `event` and its id."""
        while (got := await self.any_event())["event"] == "reset":
            # The API may have begun to listen only after this reader came.
            pass
        return got

    async def any_event(self) -> dict[str, Any]:
        """Return the next event, also one that says to look again."""
        got: dict[str, Any] = {}
        async with asyncio.timeout(10):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if not line and "event" in got:
                    return got
                if name == "data":
                    got |= json.loads(value)
                elif name in {"event", "id"}:
                    got |= {name: value} if name == "event" else {"event_id": value}
        raise AssertionError("the events have ended")

    async def ends(self) -> None:
        """Wait until nothing more comes."""
        async with asyncio.timeout(10):
            async for _ in self._lines:
                pass


@asynccontextmanager
async def reading(
    client: httpx.AsyncClient, query: str = "", **headers: str
) -> AsyncIterator[Reader]:
    async with client.stream("GET", f"/events{query}", headers=headers) as answer:
        assert answer.status_code == 200
        yield Reader(answer.aiter_lines())


async def test_changes_are_told_to_every_reader(
    postgres_url: str, sessions: Sessions, make_day: MakeDay, tmp_path: Path
) -> None:
    async with api_process(postgres_url, tmp_path) as (service, client):
        await until_logged(service, LISTENING)
        async with reading(client) as one, reading(client, "?kind=day") as two:
            run = await runs.pending(sessions)
            await make_day("2026-03-01")
            asked = await backfills.ask(sessions)
            ran, built, began = [await one.event() for _ in range(3)]
            seen = await two.event()

    assert (ran["event"], ran["id"], ran["state"]) == ("run", str(run.id), "pending")
    assert ran["report_date"] == "2026-03-01"
    assert (built["event"], built["revision"], built["state"]) == ("day", 1, "sealed")
    assert seen == built
    assert (began["event"], began["id"], began["state"]) == (
        "backfill",
        str(asked.backfill.id),
        "running",
    )


async def test_many_rows_at_once_are_one_event_and_a_heartbeat_is_none(
    postgres_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    async with api_process(postgres_url, tmp_path) as (service, client):
        await until_logged(service, LISTENING)
        async with reading(client) as reader:
            run = await runs.running(sessions)
            states = [(await reader.event())["state"] for _ in range(3)]
            async with sessions.begin() as session:
                await session.execute(
                    text("UPDATE report_runs SET progress = 'under way' WHERE id = :id"),
                    {"id": run.id},
                )
                await session.execute(
                    text(
                        "INSERT INTO report_runs (id, report_date, trigger, state, priority,"
                        " attempt, max_attempts, available_at, fence) SELECT gen_random_uuid(),"
                        " date '2025-01-01' + k, 'manual', 'pending', 0, 0, 5, now(), 0"
                        " FROM generate_series(1, 250) AS k"
                    )
                )
            many = await reader.event()

    assert states == ["pending", "queued", "running"]
    assert (many["event"], many["table"], many["rows"]) == ("many", "report_runs", 250)


async def test_a_reader_that_comes_back_gets_what_it_missed_or_is_told_to_look_again(
    postgres_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    async with api_process(postgres_url, tmp_path) as (service, client):
        await until_logged(service, LISTENING)
        async with reading(client) as reader:
            await runs.pending(sessions, day=backfills.march(1))
            last = (await reader.event())["event_id"]
            await runs.pending(sessions, day=backfills.march(2))
            missed = await reader.event()
        async with reading(client, **{"Last-Event-ID": last}) as reader:
            again = await reader.event()
        async with reading(client, **{"Last-Event-ID": "of-another-process-7"}) as reader:
            lost = await reader.any_event()

    assert again == missed
    assert lost["event"] == "reset"


async def test_events_end_when_the_server_stops(
    postgres_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    asked = await backfills.ask(sessions)
    async with api_process(postgres_url, tmp_path) as (service, client):
        path = f"/report/backfills/{asked.backfill.id}/events"
        async with reading(client) as reader, client.stream("GET", path) as answer:
            following = Reader(answer.aiter_lines())
            await following.any_event()
            stopping = asyncio.create_task(asyncio.to_thread(service.stop))
            await reader.ends()
            await following.ends()
            assert await stopping == 0


async def test_a_reader_who_takes_nothing_is_cut_off_and_costs_no_memory(
    postgres_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    async with api_process(postgres_url, tmp_path) as (service, client):
        await until_logged(service, LISTENING)
        process = psutil.Process(service.pid)
        async with reading(client), reading(client, "?kind=run") as other:
            before = process.memory_info().rss
            # Forty megabytes; kept for two readers they would be eighty.
            for k in range(20):
                async with sessions.begin() as session:
                    await session.execute(text(MANY), {"k": k, "filling": "x" * 2_000})
            await runs.pending(sessions)
            await other.ends()
            grown = process.memory_info().rss - before

    assert grown < 20_000_000


async def test_too_many_readers_are_refused(postgres_url: str, tmp_path: Path) -> None:
    async with api_process(postgres_url, tmp_path, DAYBOOK_EVENT_READERS="1") as (_, client):
        async with reading(client):
            refused = await client.get("/events")

        async def there_is_room() -> bool:
            async with client.stream("GET", "/events") as answer:
                return answer.is_success

        await until(there_is_room, what="the end of the first being noticed")

    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
