"""Step that copies the schedules of TaskIQ's Redis source into Postgres."""

import asyncio
from datetime import timedelta

import structlog

from daybook_domain import clock
from daybook_domain.errors import Unavailable
from daybook_domain.schedules import taskiq_sync
from daybook_domain.schedules.taskiq_sync import SyncResult
from daybook_platform.outage_log import OutageLog
from daybook_platform.redis.taskiq_schedule_source import RedisScheduleSource
from daybook_scheduler.metrics import SchedulerMetrics
from daybook_scheduler.step_runner import IMMEDIATELY
from daybook_scheduler.transactions import TransactionFactory

log = structlog.stdlib.get_logger(__name__)

_INTERVAL_SECONDS = 5.0


class TaskiqSync:
    """Periodic synchronization; without Redis, the schedules in Postgres stay active."""

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
        self._redis_outage = OutageLog("Redis")
        self._next_sync_at = 0.0

    async def sync_if_due(self) -> timedelta | None:
        """Synchronize the schedules, unless the last synchronization is too recent.

        Return `IMMEDIATELY` if more changes are to be made: each transaction makes a few hundred,
        so that no number of entries exceeds its timeout.
        """
        seconds = asyncio.get_running_loop().time()
        if seconds < self._next_sync_at:
            return None
        self._next_sync_at = seconds + _INTERVAL_SECONDS
        try:
            result = await self._sync()
            if result is not None and result.fired:
                # After the commit: the fires are recorded, even if Redis fails now.
                await self._source.delete(result.fired)
        except Unavailable as error:
            self._redis_outage.report(error.__cause__ or error)
            return None
        if result is None or result.is_complete:
            return None
        self._next_sync_at = seconds
        return IMMEDIATELY

    async def _sync(self) -> SyncResult | None:
        async with self._database.transaction() as session:
            if not await taskiq_sync.try_lock(session):
                return None
            # Redis is read under the lock, although that keeps the transaction open: what another
            # scheduler has written must not be undone by what this one has read before.
            snapshot = await self._source.read()
            result = await taskiq_sync.sync(
                session,
                snapshot.entries,
                redis_epoch=snapshot.generation,
                timezone=self._timezone,
                now=await clock.now(session),
            )
        self._redis_outage.end()
        self._report(result)
        return result

    def _report(self, result: SyncResult) -> None:
        self._metrics.taskiq.labels("fired").set(result.valid_count)
        self._metrics.taskiq.labels("broken").set(result.broken_count)
        if result.applied or result.ended:
            log.info("TaskIQ schedules synchronized", started=result.applied, ended=result.ended)
        for entry_id, problem in result.broken:
            log.error("TaskIQ schedule cannot fire", entry=entry_id, problem=problem)
