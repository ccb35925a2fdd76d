"""Integration tests of /events."""

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

from daybook_platform.postgres.sessions import Sessions
from tests.integration.api.conftest import MakeDay
from tests.integration.api.processes import api_process
from tests.support.factories.backfills import march, request_backfill
from tests.support.factories.runs import claim_run, create_pending_run
from tests.support.processes import wait_for_log_entry
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("clean")

LISTENING = "listening for changes"
"""Logged when the API receives all notifications from now on."""

MANY = """
SELECT count(pg_notify('daybook_events',
    json_build_object('kind', 'day', 'k', :k * 1000 + n, 'filling', CAST(:filling AS text))::text))
FROM generate_series(1, 1000) AS n
"""


class Reader:
    """A reader of `/events`."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def event(self) -> dict[str, Any]:
        """Return the next event but `reset`: its data, with `event` and its id."""
        while (event := await self.any_event())["event"] == "reset":
            # The API may have started to listen after this reader connected.
            pass
        return event

    async def any_event(self) -> dict[str, Any]:
        """Return the next event, including `reset`."""
        event: dict[str, Any] = {}
        async with asyncio.timeout(10):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if not line and "event" in event:
                    return event
                if name == "data":
                    event |= json.loads(value)
                elif name in {"event", "id"}:
                    event |= {name: value} if name == "event" else {"event_id": value}
        raise AssertionError("the event stream has ended")

    async def wait_for_end(self) -> None:
        """Wait for the end of the stream."""
        async with asyncio.timeout(10):
            async for _ in self._lines:
                pass


@asynccontextmanager
async def reading(
    client: httpx.AsyncClient, query: str = "", **headers: str
) -> AsyncIterator[Reader]:
    async with client.stream("GET", f"/events{query}", headers=headers) as response:
        assert response.status_code == 200
        yield Reader(response.aiter_lines())


async def test_changes_are_sent_to_every_reader(
    postgres_url: str, sessions: Sessions, make_day: MakeDay, tmp_path: Path
) -> None:
    async with api_process(postgres_url, tmp_path) as (service, client):
        await wait_for_log_entry(service, LISTENING)
        async with reading(client) as one, reading(client, "?kind=day") as two:
            run = await create_pending_run(sessions)
            await make_day("2026-03-01")
            requested = await request_backfill(sessions)
            run_event, day_event, backfill_event = [await one.event() for _ in range(3)]
            seen = await two.event()

    assert (run_event["event"], run_event["id"], run_event["state"]) == (
        "run",
        str(run.id),
        "pending",
    )
    assert run_event["report_date"] == "2026-03-01"
    assert (day_event["event"], day_event["revision"], day_event["state"]) == ("day", 1, "sealed")
    assert seen == day_event
    assert (backfill_event["event"], backfill_event["id"], backfill_event["state"]) == (
        "backfill",
        str(requested.backfill.id),
        "running",
    )


async def test_a_bulk_insert_is_one_event_and_a_heartbeat_is_none(
    postgres_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    async with api_process(postgres_url, tmp_path) as (service, client):
        await wait_for_log_entry(service, LISTENING)
        async with reading(client) as reader:
            run = await claim_run(sessions)
            states = [(await reader.event())["state"] for _ in range(3)]
            async with sessions.begin() as session:
                await session.execute(
                    text("UPDATE report_runs SET progress = 'building' WHERE id = :id"),
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


async def test_a_reconnecting_reader_receives_missed_events_or_a_reset(
    postgres_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    async with api_process(postgres_url, tmp_path) as (service, client):
        await wait_for_log_entry(service, LISTENING)
        async with reading(client) as reader:
            await create_pending_run(sessions, day=march(1))
            last = (await reader.event())["event_id"]
            await create_pending_run(sessions, day=march(2))
            missed = await reader.event()
        async with reading(client, **{"Last-Event-ID": last}) as reader:
            again = await reader.event()
        async with reading(client, **{"Last-Event-ID": "of-another-process-7"}) as reader:
            lost = await reader.any_event()

    assert again == missed
    assert lost["event"] == "reset"


async def test_event_streams_end_when_the_server_stops(
    postgres_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    requested = await request_backfill(sessions)
    async with api_process(postgres_url, tmp_path) as (service, client):
        path = f"/report/backfills/{requested.backfill.id}/events"
        async with reading(client) as reader, client.stream("GET", path) as response:
            following = Reader(response.aiter_lines())
            await following.any_event()
            stopping = asyncio.create_task(asyncio.to_thread(service.stop))
            await reader.wait_for_end()
            await following.wait_for_end()
            assert await stopping == 0


async def test_a_stalled_reader_is_disconnected_and_uses_no_memory(
    postgres_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    async with api_process(postgres_url, tmp_path) as (service, client):
        await wait_for_log_entry(service, LISTENING)
        process = psutil.Process(service.pid)
        async with reading(client), reading(client, "?kind=run") as other:
            before = process.memory_info().rss
            # Forty megabytes, which would be eighty if stored for two readers.
            for k in range(20):
                async with sessions.begin() as session:
                    await session.execute(text(MANY), {"k": k, "filling": "x" * 2_000})
            await create_pending_run(sessions)
            await other.wait_for_end()
            grown = process.memory_info().rss - before

    assert grown < 20_000_000


async def test_a_reader_above_the_limit_is_rejected(postgres_url: str, tmp_path: Path) -> None:
    async with api_process(postgres_url, tmp_path, DAYBOOK_EVENT_READERS="1") as (_, client):
        async with reading(client):
            refused = await client.get("/events")

        async def accepts_reader() -> bool:
            async with client.stream("GET", "/events") as response:
                return response.is_success

        await wait_until(accepts_reader, what="the release of the first subscription")

    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
