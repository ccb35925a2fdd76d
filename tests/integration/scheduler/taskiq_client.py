"""A client that adds schedules through TaskIQ's source in Redis."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from redis.asyncio import Redis
from sqlmodel import col, select
from taskiq import InMemoryBroker
from taskiq.serializers import JSONSerializer
from taskiq_redis import ListRedisScheduleSource

from daybook_domain.runs.models import ReportRun
from daybook_domain.schedules import taskiq_sync
from daybook_domain.schedules.models import Schedule
from daybook_domain.schedules.taskiq_sync import SyncResult
from daybook_platform.postgres.sessions import Sessions
from daybook_platform.redis.taskiq_schedule_source import RedisScheduleSource
from tests.support.factories.runs import list_all_runs

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class TaskiqClient:
    """A client that adds schedules through TaskIQ's source, and Daybook's view of them."""

    def __init__(self, sessions: Sessions, url: str) -> None:
        self.sessions = sessions
        self.prefix = f"test-{uuid4()}"
        self.redis: Redis = Redis.from_url(url)
        self.source = ListRedisScheduleSource(url, self.prefix, serializer=JSONSerializer())
        self.daybook_source = RedisScheduleSource(url, prefix=self.prefix)
        broker = InMemoryBroker()

        async def build(report_date: str | None = None) -> None:
            """Do nothing: clients know the task by its name only."""

        self.task = broker.register_task(build, task_name="reports.build")

    async def close(self) -> None:
        await self.daybook_source.close()
        await self.redis.aclose()
        await self.source._connection_pool.disconnect()

    async def write_raw(self, entry_id: str, raw: bytes, *, index: str = "cron") -> None:
        """Write an entry to Redis, valid or not."""
        await self.redis.set(f"{self.prefix}:data:{entry_id}", raw)
        await self.redis.rpush(f"{self.prefix}:{index}", entry_id)

    async def delete(self, *entry_ids: str) -> None:
        """Delete entries of the index `cron` from Redis, as a client does."""
        for entry_id in entry_ids:
            await self.redis.lrem(f"{self.prefix}:cron", 0, entry_id)
            await self.redis.delete(f"{self.prefix}:data:{entry_id}")

    async def count_commands(self) -> int:
        """Return how many commands Redis has executed."""
        return int((await self.redis.info("stats"))["total_commands_processed"])

    async def list_keys(self) -> set[str]:
        found = [key.decode() async for key in self.redis.scan_iter(f"{self.prefix}:*")]
        return {key.removeprefix(f"{self.prefix}:") for key in found} - {"daybook:memory"}

    async def sync(self, *, now: datetime = NOW) -> SyncResult:
        """Synchronize the schedules once, as a scheduler does."""
        found = await self.daybook_source.read()
        async with self.sessions.begin() as session:
            return await taskiq_sync.sync(
                session, found.entries, redis_epoch=found.generation, timezone="UTC", now=now
            )

    async def sync_entries(self, entries: Mapping[str, bytes]) -> SyncResult:
        """Synchronize the schedules once with these entries instead of those in Redis."""
        async with self.sessions.begin() as session:
            return await taskiq_sync.sync(
                session, entries, redis_epoch="before", timezone="UTC", now=NOW
            )

    async def list_schedules(self) -> list[Schedule]:
        async with self.sessions() as session:
            statement = select(Schedule).where(col(Schedule.deleted_at).is_(None))
            return list((await session.exec(statement.order_by(col(Schedule.name)))).all())

    async def list_fires(self) -> list[ReportRun]:
        return [run for run in await list_all_runs(self.sessions) if run.scheduled_for is not None]
