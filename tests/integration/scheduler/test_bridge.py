"""Are the schedules of TaskIQ's callers fired through the ledger, whatever they put into Redis?"""

import json
import pickle
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col, select
from taskiq import InMemoryBroker
from taskiq.serializers import JSONSerializer
from taskiq_redis import ListRedisScheduleSource

from daybook_domain.errors import Unavailable
from daybook_domain.runs.models import ReportRun, RunState
from daybook_domain.schedules import queries, service, taskiq_sync
from daybook_domain.schedules.audit import find_problems
from daybook_domain.schedules.errors import ScheduleFromTaskiq
from daybook_domain.schedules.models import Schedule, ScheduleOrigin
from daybook_domain.schedules.taskiq_sync import SyncResult
from daybook_platform.postgres.engine import Sessions
from daybook_platform.redis.schedule_source import RedisScheduleSource
from daybook_scheduler.metrics import SchedulerMetrics
from tests.integration.scheduler.loops import Loops, RecordingQueue, count
from tests.support.runs import everything
from tests.support.schedules import add, materialise
from tests.support.waiting import until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Callers:
    """What TaskIQ's callers do, and what Daybook then sees."""

    def __init__(self, sessions: Sessions, url: str) -> None:
        self.sessions = sessions
        self.prefix = f"test-{uuid4()}"
        self.redis: Redis = Redis.from_url(url)
        self.theirs = ListRedisScheduleSource(url, self.prefix, serializer=JSONSerializer())
        self.ours = RedisScheduleSource(url, prefix=self.prefix)
        broker = InMemoryBroker()

        async def build(report_date: str | None = None) -> None:
            """Stand for the task, which others know by its name only."""

        self.task = broker.register_task(build, task_name="reports.build")

    async def close(self) -> None:
        await self.ours.close()
        await self.redis.aclose()
        await self.theirs._connection_pool.disconnect()

    async def write(self, entry_id: str, raw: bytes, *, where: str = "cron") -> None:
        """Put anything into Redis."""
        await self.redis.set(f"{self.prefix}:data:{entry_id}", raw)
        await self.redis.rpush(f"{self.prefix}:{where}", entry_id)

    async def keys(self) -> set[str]:
        found = [key.decode() async for key in self.redis.scan_iter(f"{self.prefix}:*")]
        return {key.removeprefix(f"{self.prefix}:") for key in found} - {"daybook:memory"}

    async def adopt(self, *, now: datetime = NOW) -> SyncResult:
        """Do what a scheduler does when it looks."""
        found = await self.ours.read()
        async with self.sessions.begin() as session:
            return await taskiq_sync.sync(
                session, found.entries, memory=found.generation, timezone="UTC", now=now
            )

    async def schedules(self) -> list[Schedule]:
        async with self.sessions() as session:
            there = select(Schedule).where(col(Schedule.deleted_at).is_(None))
            return list((await session.exec(there.order_by(col(Schedule.name)))).all())

    async def fires(self) -> list[ReportRun]:
        return [run for run in await everything(self.sessions) if run.scheduled_for is not None]


@pytest.fixture
async def callers(sessions: Sessions, redis_url: str, no_runs: None) -> AsyncIterator[Callers]:
    """Return callers who share a Redis with nobody."""
    callers = Callers(sessions, redis_url)
    yield callers
    await callers.close()


async def test_a_cron_fires_through_the_ledger_until_it_is_taken_out(callers: Callers) -> None:
    made = await callers.task.schedule_by_cron(callers.theirs, "0 * * * *")
    await callers.adopt()
    await callers.adopt(now=NOW + 3 * HOUR)

    fires = await materialise(callers.sessions, now=NOW + 3 * HOUR)
    await made.unschedule()
    ended = await callers.adopt(now=NOW + 3 * HOUR)
    later = await materialise(callers.sessions, now=NOW + 9 * HOUR)

    assert fires.recorded == 3
    assert [run.scheduled_for for run in await callers.fires()] == [
        NOW + hours * HOUR for hours in (1, 2, 3)
    ]
    assert ended.ended == (made.schedule_id,)
    assert (later.recorded, await callers.schedules()) == (0, [])


async def test_what_was_due_when_it_was_taken_out_is_in_the_ledger(callers: Callers) -> None:
    made = await callers.task.schedule_by_cron(callers.theirs, "0 * * * *")
    await callers.adopt()
    await made.unschedule()

    await callers.adopt(now=NOW + HOUR)

    assert [run.scheduled_for for run in await callers.fires()] == [NOW + HOUR]


async def test_a_time_fires_once_and_is_taken_out_only_then(callers: Callers) -> None:
    made = await callers.task.schedule_by_time(callers.theirs, NOW + HOUR, "2026-02-20")
    await callers.adopt()
    before = await materialise(callers.sessions, now=NOW + HOUR / 2)
    not_yet = await callers.adopt(now=NOW + HOUR / 2)

    await materialise(callers.sessions, now=NOW + HOUR)
    done = await callers.adopt(now=NOW + HOUR)
    kept = await callers.keys()
    await callers.ours.delete(done.fired)
    ended = await callers.adopt(now=NOW + HOUR)

    assert (before.recorded, not_yet.fired) == (0, ())
    (run,) = await callers.fires()
    assert (run.scheduled_for, str(run.report_date)) == (NOW + HOUR, "2026-02-20")
    assert done.fired == ended.ended == (made.schedule_id,)
    assert f"data:{made.schedule_id}" in kept
    assert await callers.keys() == set()


async def test_a_time_that_stays_in_redis_does_not_fire_again(callers: Callers) -> None:
    await callers.task.schedule_by_time(callers.theirs, NOW)
    for hours in range(4):
        await callers.adopt(now=NOW + hours * HOUR)
        await materialise(callers.sessions, now=NOW + hours * HOUR)

    assert len(await callers.fires()) == 1
    async with callers.sessions() as session:
        now = NOW + 3 * HOUR
        assert not await find_problems(
            session, since=NOW - HOUR, now=now, patience=timedelta(days=1)
        )


async def test_a_time_that_has_passed_is_made_up_for_or_missed_with_a_reason(
    callers: Callers,
) -> None:
    await callers.task.schedule_by_time(callers.theirs, NOW - HOUR)
    await callers.task.schedule_by_time(callers.theirs, NOW - timedelta(days=8))
    await callers.adopt()

    await materialise(callers.sessions, now=NOW)

    old, recent = await callers.fires()
    assert (old.state, recent.state) == (RunState.MISSED, RunState.PENDING)
    assert "outside the window" in str(old.reason)


async def test_the_same_id_with_another_content_is_a_change(callers: Callers) -> None:
    kicker = callers.task.kicker().with_schedule_id("theirs")
    await kicker.schedule_by_time(callers.theirs, NOW + HOUR)
    await callers.adopt()
    await materialise(callers.sessions, now=NOW + HOUR)

    await kicker.schedule_by_time(callers.theirs, NOW + 2 * HOUR)
    await callers.adopt(now=NOW + HOUR)
    await materialise(callers.sessions, now=NOW + 2 * HOUR)
    await callers.redis.delete(f"{callers.prefix}:time:2026-03-01T13:00")
    await kicker.schedule_by_cron(callers.theirs, "0 0 * * *")
    changed = await callers.adopt(now=NOW + 2 * HOUR)

    assert [run.scheduled_for for run in await callers.fires()] == [NOW + HOUR, NOW + 2 * HOUR]
    (schedule,) = await callers.schedules()
    assert (schedule.cron, schedule.origin) == ("0 0 * * *", ScheduleOrigin.TASKIQ)
    assert changed.begun == ("theirs",)


async def test_what_is_corrupt_is_reported_once_and_stops_nothing(callers: Callers) -> None:
    await add(callers.sessions, "taken")
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
        await callers.write(entry_id, raw, where="interval" if entry_id == "interval" else "cron")
    await callers.redis.rpush(f"{callers.prefix}:cron", "no-data")
    await callers.redis.rpush(f"{callers.prefix}:time:nonsense", "no-data")
    await callers.write("good", json.dumps(good).encode())

    first, second = await callers.adopt(), await callers.adopt()

    assert first.begun == ("good",)
    assert len(first.broken) == first.problems == len(corrupt)
    assert (second.begun, second.broken, second.problems) == ((), (), len(corrupt))
    assert [schedule.name for schedule in await callers.schedules()] == ["good", "taken"]
    async with callers.sessions() as session:
        listed = await queries.list_taskiq_entries(session, broken=True, limit=100)
    problems = {entry.id: entry.problem for entry in listed}
    assert "pickle is never loaded" in str(problems["pickled"])
    assert problems["taken"] == "There is a schedule named taken already."


async def test_an_entry_that_becomes_corrupt_fires_no_more_and_one_that_is_mended_does(
    callers: Callers,
) -> None:
    made = await callers.task.schedule_by_cron(callers.theirs, "0 * * * *")
    key = f"{callers.prefix}:data:{made.schedule_id}"
    whole = await callers.redis.get(key)
    assert whole is not None
    await callers.adopt()
    await callers.redis.set(key, b"{")
    broken = await callers.adopt()
    there = await callers.schedules()
    await callers.redis.set(key, whole)
    mended = await callers.adopt()

    assert ([entry_id for entry_id, _ in broken.broken], there) == ([made.schedule_id], [])
    assert mended.begun == (made.schedule_id,)
    assert [schedule.name for schedule in await callers.schedules()] == [made.schedule_id]


async def test_a_redis_that_has_lost_its_memory_takes_no_schedule_with_it(
    callers: Callers,
) -> None:
    lost = await callers.task.schedule_by_cron(callers.theirs, "0 * * * *")
    await callers.adopt()
    for key in [f"{callers.prefix}:daybook:memory", f"{callers.prefix}:cron"]:
        await callers.redis.delete(key)
    new = await callers.task.schedule_by_cron(callers.theirs, "30 * * * *")

    for _ in range(2):
        await callers.adopt()

    names = {schedule.name for schedule in await callers.schedules()}
    assert names == {lost.schedule_id, new.schedule_id}
    assert (await materialise(callers.sessions, now=NOW + HOUR)).recorded == 2


async def test_it_is_changed_in_redis_only_but_can_be_removed_here(callers: Callers) -> None:
    await callers.task.schedule_by_cron(callers.theirs, "0 * * * *")
    await callers.adopt()
    (schedule,) = await callers.schedules()
    assert schedule.id is not None

    async with callers.sessions.begin() as session:
        with pytest.raises(ScheduleFromTaskiq, match="change it there"):
            await service.change(
                session, schedule.id, changes={"cron": "@daily"}, versions=None, now=NOW
            )
        await service.remove(session, schedule.id, versions=None, now=NOW)
    await callers.adopt()

    assert await callers.schedules() == []


async def test_a_redis_that_is_away_is_unavailable(callers: Callers) -> None:
    away = RedisScheduleSource("redis://127.0.0.1:1/0")
    with pytest.raises(Unavailable):
        await away.read()
    with pytest.raises(Unavailable):
        await away.delete(["x"])
    await away.close()


async def test_the_loop_looks_and_sends_and_takes_out_what_fired_once(
    callers: Callers, loops: Loops, engine: AsyncEngine
) -> None:
    made = await callers.task.schedule_by_time(
        callers.theirs, datetime.now(UTC) - timedelta(seconds=1)
    )
    await callers.write("broken", b"{")
    queue, metrics = RecordingQueue(), SchedulerMetrics()

    async def is_out() -> bool:
        return await callers.keys() == {"cron", "data:broken"}

    async with loops.running(queue, metrics=metrics, taskiq=callers.ours):
        await queue.was_tried()
        await until(is_out, what="the entry taken out of Redis")

    (run,) = await callers.fires()
    assert queue.sent == [run.id]
    async with callers.sessions() as session:
        (schedule,) = (
            await session.exec(select(Schedule).where(Schedule.name == made.schedule_id))
        ).all()
    assert schedule.id == run.schedule_id
    assert count(metrics, "taskiq_schedules", state="broken") == 1


async def test_the_loop_goes_on_without_redis(loops: Loops) -> None:
    away = RedisScheduleSource("redis://127.0.0.1:1/0")
    queue, metrics = RecordingQueue(), SchedulerMetrics()
    async with loops.running(queue, metrics=metrics, taskiq=away):
        await loops.make_due()
        await queue.was_tried()
    await away.close()

    assert count(metrics, "ticks_total", step="bridge", outcome="ok") > 0
    assert count(metrics, "ticks_total", step="bridge", outcome="failed") == 0
