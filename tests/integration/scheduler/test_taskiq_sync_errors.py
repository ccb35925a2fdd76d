"""Synchronization with entries that cannot fire, that are locked, or that are very many."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.schedules import taskiq_entries, taskiq_sync
from daybook_domain.schedules.cron import due_times
from tests.integration.scheduler.taskiq_client import NOW, TaskiqClient
from tests.support.factories.schedules import update_schedule_row
from tests.support.postgres import added_constraint

ENTRY = {"task_name": "reports.build", "labels": {}, "args": [], "kwargs": {}}


def serialize(**fields: object) -> bytes:
    return json.dumps({**ENTRY, **fields}).encode()


@pytest.mark.parametrize(
    "time",
    [
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-05:00",
        "9999-12-31T23:59:59Z",
        "1970-01-01T00:00:00Z",
    ],
)
async def test_a_time_without_a_report_date_is_a_problem_of_its_entry_only(
    client: TaskiqClient, time: str
) -> None:
    await client.write_raw("extreme", serialize(time=time))
    await client.write_raw("good", serialize(cron="@daily"))

    first = await client.sync()

    assert first.applied == ("good",)
    ((entry_id, problem),) = first.broken
    assert entry_id == "extreme"
    assert "1970-01-01 to 9998-12-31" in problem
    await client.delete("extreme")
    second = await client.sync()
    assert (second.ended, second.broken_count) == (("extreme",), 0)


async def test_an_entry_whose_schedule_cannot_fire_can_be_deleted_from_redis(
    client: TaskiqClient,
) -> None:
    for entry_id in ("epoch", "zone", "good"):
        await client.write_raw(entry_id, serialize(cron="@daily"))
    await client.sync()
    # Releases before this one adopted such entries; a release of tzdata can drop a zone.
    epoch = datetime.fromtimestamp(0, UTC)
    await update_schedule_row(
        client.sessions, "epoch", cron=due_times.one_shot(epoch), next_fire_at=epoch
    )
    await update_schedule_row(client.sessions, "zone", timezone="Mars/Olympus", next_fire_at=NOW)
    await client.delete("epoch", "zone")

    ended = await client.sync()

    assert sorted(ended.ended) == ["epoch", "zone"]
    assert [schedule.name for schedule in await client.list_schedules()] == ["good"]


async def test_an_unexpected_error_of_one_entry_affects_no_other(
    client: TaskiqClient, engine: AsyncEngine
) -> None:
    for entry_id in ("a", "refused", "z"):
        await client.write_raw(entry_id, serialize(cron="@daily"))
    constraint = "ALTER TABLE schedules ADD CONSTRAINT refusing CHECK (name <> 'refused')"
    async with added_constraint(engine, constraint):
        result = await client.sync()

    assert result.applied == ("a", "z")
    ((entry_id, problem),) = result.broken
    assert entry_id == "refused"
    assert "refusing" in problem


async def test_an_entry_whose_schedule_is_locked_is_postponed_and_delays_no_other(
    client: TaskiqClient,
) -> None:
    for entry_id in ("changed", "ended"):
        await client.write_raw(entry_id, serialize(cron="@daily"))
    await client.sync()
    await client.delete("ended", "changed")
    await client.write_raw("changed", serialize(cron="@hourly"))
    await client.write_raw("new", serialize(cron="@daily"))

    async with client.sessions.begin() as session:
        await session.execute(text("SELECT FROM schedules FOR UPDATE"))
        blocked = await asyncio.wait_for(client.sync(), timeout=5)
    freed = await client.sync()

    assert (blocked.applied, blocked.ended, blocked.is_complete) == (("new",), (), True)
    assert (freed.applied, freed.ended) == (("changed",), ("ended",))


async def test_many_entries_are_synchronized_in_batches_and_progress_survives(
    client: TaskiqClient,
) -> None:
    count = 2 * taskiq_sync.MAX_CHANGES + 1
    entries = {f"entry-{n:04}": serialize(cron="@daily") for n in range(count)}

    batches = [await client.sync_entries(entries) for _ in range(3)]
    removed = [await client.sync_entries({}) for _ in range(3)]

    sizes = [taskiq_sync.MAX_CHANGES, taskiq_sync.MAX_CHANGES, 1]
    assert [len(batch.applied) for batch in batches] == sizes
    assert [batch.is_complete for batch in batches] == [False, False, True]
    assert [len(batch.ended) for batch in removed] == sizes
    assert [batch.is_complete for batch in removed] == [False, False, True]
    assert await client.list_schedules() == []


async def test_more_entries_than_a_statement_has_parameters_are_synchronized(
    client: TaskiqClient, engine: AsyncEngine
) -> None:
    entries = dict.fromkeys((f"entry-{n}" for n in range(33_000)), b"{")
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO taskiq_entries (id, digest, memory, problem)"
                " SELECT 'entry-' || n, :digest, 'before', 'x' FROM generate_series(1, 32999) AS n"
            ),
            {"digest": taskiq_entries.digest(b"{")},
        )

    result = await client.sync_entries(entries)

    assert [entry_id for entry_id, _ in result.broken] == ["entry-0"]
    assert (result.broken_count, result.is_complete) == (33_000, True)
    gone = await client.sync_entries({})
    assert len(gone.ended) == taskiq_sync.MAX_CHANGES


async def test_the_source_reads_and_deletes_thousands_of_one_time_entries(
    client: TaskiqClient,
) -> None:
    instants = [NOW + timedelta(minutes=n) for n in range(2000)]
    async with client.redis.pipeline() as pipe:
        for at in instants:
            pipe.rpush(f"{client.prefix}:time:{at:%Y-%m-%dT%H:%M}", f"{at:%m%d%H%M}")
            pipe.set(f"{client.prefix}:data:{at:%m%d%H%M}", serialize(time=at.isoformat()))
        await pipe.execute()
    before = await client.count_commands()

    found = await client.daybook_source.read()
    await client.daybook_source.delete(list(found.entries))

    assert len(found.entries) == len(instants)
    assert await client.list_keys() == set()
    # One command per key and entry, not one per pair of them.
    assert await client.count_commands() - before < 10 * len(instants)
