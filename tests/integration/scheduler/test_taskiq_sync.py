"""Synchronization of the schedules that clients of TaskIQ add to Redis."""

import json
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select

from daybook_domain.errors import Unavailable
from daybook_domain.runs.models import RunState
from daybook_domain.schedules import queries, service
from daybook_domain.schedules.audit import find_problems
from daybook_domain.schedules.errors import ScheduleFromTaskiq
from daybook_domain.schedules.models import Schedule, ScheduleOrigin
from daybook_platform.redis.taskiq_schedule_source import RedisScheduleSource
from daybook_scheduler.metrics import SchedulerMetrics
from tests.integration.scheduler.loops import LoopFactory, RecordingQueue, get_metric
from tests.integration.scheduler.taskiq_client import HOUR, NOW, TaskiqClient
from tests.support.factories.schedules import create_schedule, materialize_due_fires
from tests.support.waiting import wait_until


async def test_a_cron_schedule_fires_until_it_is_removed(client: TaskiqClient) -> None:
    made = await client.task.schedule_by_cron(client.source, "0 * * * *")
    await client.sync()
    await client.sync(now=NOW + 3 * HOUR)

    fires = await materialize_due_fires(client.sessions, now=NOW + 3 * HOUR)
    await made.unschedule()
    ended = await client.sync(now=NOW + 3 * HOUR)
    later = await materialize_due_fires(client.sessions, now=NOW + 9 * HOUR)

    assert fires.recorded == 3
    assert [run.scheduled_for for run in await client.list_fires()] == [
        NOW + hours * HOUR for hours in (1, 2, 3)
    ]
    assert ended.ended == (made.schedule_id,)
    assert (later.recorded, await client.list_schedules()) == (0, [])


async def test_a_fire_that_was_due_when_its_schedule_was_removed_is_recorded(
    client: TaskiqClient,
) -> None:
    made = await client.task.schedule_by_cron(client.source, "0 * * * *")
    await client.sync()
    await made.unschedule()

    await client.sync(now=NOW + HOUR)

    assert [run.scheduled_for for run in await client.list_fires()] == [NOW + HOUR]


async def test_a_one_time_schedule_fires_once_and_is_removed_from_redis_only_then(
    client: TaskiqClient,
) -> None:
    made = await client.task.schedule_by_time(client.source, NOW + HOUR, "2026-02-20")
    await client.sync()
    before = await materialize_due_fires(client.sessions, now=NOW + HOUR / 2)
    not_yet = await client.sync(now=NOW + HOUR / 2)

    await materialize_due_fires(client.sessions, now=NOW + HOUR)
    done = await client.sync(now=NOW + HOUR)
    keys = await client.list_keys()
    await client.daybook_source.delete(done.fired)
    ended = await client.sync(now=NOW + HOUR)

    assert (before.recorded, not_yet.fired) == (0, ())
    (run,) = await client.list_fires()
    assert (run.scheduled_for, str(run.report_date)) == (NOW + HOUR, "2026-02-20")
    assert done.fired == ended.ended == (made.schedule_id,)
    assert f"data:{made.schedule_id}" in keys
    assert await client.list_keys() == set()


async def test_a_one_time_schedule_that_remains_in_redis_does_not_fire_again(
    client: TaskiqClient,
) -> None:
    await client.task.schedule_by_time(client.source, NOW)
    for hours in range(4):
        await client.sync(now=NOW + hours * HOUR)
        await materialize_due_fires(client.sessions, now=NOW + hours * HOUR)

    assert len(await client.list_fires()) == 1
    async with client.sessions() as session:
        now = NOW + 3 * HOUR
        assert not await find_problems(
            session, since=NOW - HOUR, now=now, overdue_after=timedelta(days=1)
        )


async def test_a_one_time_schedule_in_the_past_is_caught_up_or_recorded_as_missed_with_a_reason(
    client: TaskiqClient,
) -> None:
    await client.task.schedule_by_time(client.source, NOW - HOUR)
    await client.task.schedule_by_time(client.source, NOW - timedelta(days=8))
    await client.sync()

    await materialize_due_fires(client.sessions, now=NOW)

    old, recent = await client.list_fires()
    assert (old.state, recent.state) == (RunState.MISSED, RunState.PENDING)
    assert "outside the window" in str(old.reason)


async def test_an_entry_with_the_same_id_and_other_content_changes_the_schedule(
    client: TaskiqClient,
) -> None:
    kicker = client.task.kicker().with_schedule_id("nightly")
    await kicker.schedule_by_time(client.source, NOW + HOUR)
    await client.sync()
    await materialize_due_fires(client.sessions, now=NOW + HOUR)

    await kicker.schedule_by_time(client.source, NOW + 2 * HOUR)
    await client.sync(now=NOW + HOUR)
    await materialize_due_fires(client.sessions, now=NOW + 2 * HOUR)
    await client.redis.delete(f"{client.prefix}:time:2026-03-01T13:00")
    await kicker.schedule_by_cron(client.source, "0 0 * * *")
    changed = await client.sync(now=NOW + 2 * HOUR)

    assert [run.scheduled_for for run in await client.list_fires()] == [NOW + HOUR, NOW + 2 * HOUR]
    (schedule,) = await client.list_schedules()
    assert (schedule.cron, schedule.origin) == ("0 0 * * *", ScheduleOrigin.TASKIQ)
    assert changed.applied == ("nightly",)


async def test_a_corrupt_entry_is_reported_once_and_does_not_block_others(
    client: TaskiqClient,
) -> None:
    await create_schedule(client.sessions, "taken")
    good = {"task_name": "reports.build", "labels": {}, "args": [], "kwargs": {}, "cron": "@daily"}
    corrupt = {
        "pickled": pickle.dumps(good),
        "not-json": b"{",
        "bad-cron": json.dumps({**good, "cron": "61 * * * *"}).encode(),
        "bad-zone": json.dumps({**good, "cron_offset": "Mars/Olympus\x00"}).encode(),
        "unknown-task": json.dumps({**good, "task_name": "reports.b\x00"}).encode(),
        "taken": json.dumps(good).encode(),
        "daily": json.dumps(good).encode(),
        "n\x00l": b"{",
        "x" * 300: b"{",
        "interval": json.dumps({**good, "cron": None, "interval": 60}).encode(),
    }
    for entry_id, raw in corrupt.items():
        await client.write_raw(
            entry_id, raw, index="interval" if entry_id == "interval" else "cron"
        )
    await client.redis.rpush(f"{client.prefix}:cron", "no-data")
    await client.redis.rpush(f"{client.prefix}:time:nonsense", "no-data")
    await client.write_raw("good", json.dumps(good).encode())

    first, second = await client.sync(), await client.sync()

    assert first.applied == ("good",)
    assert len(first.broken) == first.broken_count == len(corrupt)
    assert (second.applied, second.broken, second.broken_count) == ((), (), len(corrupt))
    assert [schedule.name for schedule in await client.list_schedules()] == ["good", "taken"]
    async with client.sessions() as session:
        listed = await queries.list_taskiq_entries(session, broken=True, limit=100)
    problems = {entry.id: entry.problem for entry in listed}
    assert "pickle is never loaded" in str(problems["pickled"])
    assert problems["taken"] == "A schedule named taken already exists."


async def test_an_entry_that_becomes_corrupt_stops_firing_until_it_is_repaired(
    client: TaskiqClient,
) -> None:
    made = await client.task.schedule_by_cron(client.source, "0 * * * *")
    key = f"{client.prefix}:data:{made.schedule_id}"
    valid = await client.redis.get(key)
    assert valid is not None
    await client.sync()
    await client.redis.set(key, b"{")
    broken = await client.sync()
    active = await client.list_schedules()
    await client.redis.set(key, valid)
    repaired = await client.sync()

    assert ([entry_id for entry_id, _ in broken.broken], active) == ([made.schedule_id], [])
    assert repaired.applied == (made.schedule_id,)
    assert [schedule.name for schedule in await client.list_schedules()] == [made.schedule_id]


async def test_a_redis_that_has_lost_its_data_ends_no_schedule(
    client: TaskiqClient,
) -> None:
    lost = await client.task.schedule_by_cron(client.source, "0 * * * *")
    await client.sync()
    for key in [f"{client.prefix}:daybook:memory", f"{client.prefix}:cron"]:
        await client.redis.delete(key)
    new = await client.task.schedule_by_cron(client.source, "30 * * * *")

    for _ in range(2):
        await client.sync()

    names = {schedule.name for schedule in await client.list_schedules()}
    assert names == {lost.schedule_id, new.schedule_id}
    assert (await materialize_due_fires(client.sessions, now=NOW + HOUR)).recorded == 2


async def test_a_schedule_of_taskiq_can_be_changed_in_redis_only_but_removed_in_daybook(
    client: TaskiqClient,
) -> None:
    await client.task.schedule_by_cron(client.source, "0 * * * *")
    await client.sync()
    (schedule,) = await client.list_schedules()
    assert schedule.id is not None

    async with client.sessions.begin() as session:
        with pytest.raises(ScheduleFromTaskiq, match="change it there"):
            await service.change(
                session, schedule.id, changes={"cron": "@daily"}, versions=None, now=NOW
            )
        await service.remove(session, schedule.id, versions=None, now=NOW)
    await client.sync()

    assert await client.list_schedules() == []


async def test_an_unreachable_redis_raises_unavailable(client: TaskiqClient) -> None:
    unreachable = RedisScheduleSource("redis://127.0.0.1:1/0")
    with pytest.raises(Unavailable):
        await unreachable.read()
    with pytest.raises(Unavailable):
        await unreachable.delete(["x"])
    await unreachable.close()


async def test_the_loop_dispatches_a_one_time_schedule_and_removes_it_from_redis(
    client: TaskiqClient, loops: LoopFactory, engine: AsyncEngine
) -> None:
    made = await client.task.schedule_by_time(
        client.source, datetime.now(UTC) - timedelta(seconds=1)
    )
    await client.write_raw("broken", b"{")
    queue, metrics = RecordingQueue(), SchedulerMetrics()

    async def is_removed() -> bool:
        return await client.list_keys() == {"cron", "data:broken"}

    async with loops.running(queue, metrics=metrics, taskiq=client.daybook_source):
        await queue.wait_until_attempted()
        await wait_until(is_removed, what="the removal of the entry from Redis")

    (run,) = await client.list_fires()
    assert queue.sent == [run.id]
    async with client.sessions() as session:
        (schedule,) = (
            await session.exec(select(Schedule).where(Schedule.name == made.schedule_id))
        ).all()
    assert schedule.id == run.schedule_id
    assert get_metric(metrics, "taskiq_schedules", state="broken") == 1


async def test_the_loop_works_without_redis(loops: LoopFactory) -> None:
    unreachable = RedisScheduleSource("redis://127.0.0.1:1/0")
    queue, metrics = RecordingQueue(), SchedulerMetrics()
    async with loops.running(queue, metrics=metrics, taskiq=unreachable):
        await loops.make_daily_schedule_due()
        await queue.wait_until_attempted()
    await unreachable.close()

    assert get_metric(metrics, "ticks_total", step="bridge", outcome="ok") > 0
    assert get_metric(metrics, "ticks_total", step="bridge", outcome="failed") == 0
