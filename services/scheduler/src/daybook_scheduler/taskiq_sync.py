"""How does the scheduler hear of the schedules that TaskIQ's callers put into Redis?"""

import asyncio

import structlog

from daybook_domain import clock
from daybook_domain.errors import Unavailable
from daybook_domain.schedules import taskiq_sync
from daybook_domain.schedules.taskiq_sync import SyncResult
from daybook_platform.redis.schedule_source import RedisScheduleSource, SourceSnapshot
from daybook_scheduler.metrics import SchedulerMetrics
from daybook_scheduler.transactions import OutageLog, TransactionFactory

log = structlog.stdlib.get_logger(__name__)

LOOK_EVERY_SECONDS = 5.0


class TaskiqSync:
    """Looks into Redis every few seconds; without Redis, all that is known goes on."""

    def __init__(
        self,
        *,
        database: TransactionFactory,
        source: RedisScheduleSource,
        timezone: str,
        metrics: SchedulerMetrics,
    ) -> None:
        self._database = database
        self._source = source
        self._timezone = timezone
        self._metrics = metrics
        self._redis = OutageLog("Redis")
        self._look_at = 0.0

    async def look(self) -> bool:
        """Let the schedules be what Redis has, if it is time to look again."""
        seconds = asyncio.get_running_loop().time()
        if seconds < self._look_at:
            return False
        self._look_at = seconds + LOOK_EVERY_SECONDS
        try:
            adopted = await self._adopt()
            if adopted is not None and adopted.fired:
                # After the commit: the ledger has them, whatever becomes of Redis.
                await self._source.delete(adopted.fired)
        except Unavailable as error:
            self._redis.noticed(error.__cause__ or error)
        return False

    async def _adopt(self) -> SyncResult | None:
        async with self._database.transaction() as session:
            if not await taskiq_sync.try_lock(session):
                return None
            # Under the lock, although Redis has to be waited for: what another scheduler has
            # written down must not be undone by what this one read before.
            found = await self._source.read()
            adopted = await taskiq_sync.sync(
                session,
                found.entries,
                memory=found.generation,
                timezone=self._timezone,
                now=await clock.now(session),
            )
        self._redis.over()
        self._tell(found, adopted)
        return adopted

    def _tell(self, found: SourceSnapshot, adopted: SyncResult) -> None:
        self._metrics.taskiq.labels("fired").set(len(found.entries) - adopted.problems)
        self._metrics.taskiq.labels("broken").set(adopted.problems)
        if adopted.begun or adopted.ended:
            log.info("TaskIQ's schedules", begun=adopted.begun, ended=adopted.ended)
        for entry_id, problem in adopted.broken:
            log.error("a schedule of TaskIQ's cannot be fired", entry=entry_id, problem=problem)
