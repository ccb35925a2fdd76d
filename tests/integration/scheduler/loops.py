"""Scheduler loops under test, and a queue that records what they send."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.errors import Unavailable
from daybook_domain.runs.tasks import BuildReport
from daybook_domain.tasks import P, Task, TaskQueue
from daybook_platform.postgres.engine import create_sessions
from daybook_platform.redis.taskiq_schedule_source import RedisScheduleSource
from daybook_scheduler.dispatch import Dispatcher
from daybook_scheduler.loop import SchedulerLoop
from daybook_scheduler.loop_config import LoopConfig
from daybook_scheduler.metrics import SchedulerMetrics
from daybook_scheduler.transactions import TransactionFactory
from tests.support.waiting import wait_until

CONFIG = LoopConfig(
    daily_cron="0 0 * * *",
    timezone="UTC",
    reconcile_days=3,
    dispatch_lease=timedelta(seconds=20),
    tick=timedelta(milliseconds=50),
)
LONG_TICK = replace(CONFIG, tick=timedelta(minutes=10))
"""A test that waits for this tick times out."""


class RecordingQueue:
    """A queue that records what was sent; it can refuse, fail, or block."""

    def __init__(self) -> None:
        self.sent: list[UUID] = []
        self.attempts = 0
        self.is_unavailable = False
        self.is_broken = False
        self.unblocked = asyncio.Event()
        self.unblocked.set()

    async def send(self, task: Task[P], payload: P) -> None:
        """Record the run of the task."""
        self.attempts += 1
        await self.unblocked.wait()
        if self.is_unavailable:
            raise Unavailable("RabbitMQ did not take the message")
        if self.is_broken:
            raise ArithmeticError("simulated bug")
        checked: BaseModel = payload
        assert isinstance(checked, BuildReport)
        self.sent.append(checked.run_id)

    async def wait_until_sent(self, *run_ids: UUID) -> None:
        """Wait until exactly these runs were sent."""

        async def is_sent() -> bool:
            return sorted(self.sent) == sorted(run_ids)

        await wait_until(is_sent, what=f"sending {run_ids}, instead of {self.sent},")

    async def wait_until_attempted(self, times: int = 1) -> None:
        """Wait until this number of sends have started."""

        async def is_attempted() -> bool:
            return self.attempts >= times

        await wait_until(is_attempted, what=f"{times} attempts")


class LoopFactory:
    """Scheduler loops on one database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.sessions = create_sessions(engine)

    def create_dispatcher(
        self, queue: TaskQueue, *, metrics: SchedulerMetrics | None = None
    ) -> Dispatcher:
        """Return a dispatcher without a loop."""
        return Dispatcher(
            database=TransactionFactory(self.sessions),
            queue=queue,
            metrics=metrics or SchedulerMetrics(),
            lease=CONFIG.dispatch_lease,
            queue_lease=CONFIG.queue_lease,
        )

    def create(
        self,
        queue: TaskQueue,
        *,
        config: LoopConfig = CONFIG,
        metrics: SchedulerMetrics | None = None,
        engine: AsyncEngine | None = None,
        taskiq: RedisScheduleSource | None = None,
    ) -> SchedulerLoop:
        """Return a loop that does not run yet."""
        return SchedulerLoop(
            engine=engine or self.engine,
            queue=queue,
            config=config,
            metrics=metrics or SchedulerMetrics(),
            taskiq=taskiq,
        )

    @asynccontextmanager
    async def running(
        self,
        queue: TaskQueue,
        *,
        config: LoopConfig = CONFIG,
        metrics: SchedulerMetrics | None = None,
        engine: AsyncEngine | None = None,
        taskiq: RedisScheduleSource | None = None,
    ) -> AsyncIterator[None]:
        """Run a loop until the end of the block."""
        stop = asyncio.Event()
        loop = self.create(queue, config=config, metrics=metrics, engine=engine, taskiq=taskiq)
        task = asyncio.create_task(loop.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, timeout=10)

    async def execute(self, statement: str) -> None:
        """Execute a statement that no service would."""
        async with self.engine.begin() as connection:
            await connection.execute(text(statement))

    async def make_daily_schedule_due(self, *, nights: int = 1) -> None:
        """Move the daily schedule back, so that it has been due for this number of nights."""
        await wait_until(self.has_daily_schedule, what="the definition of the daily schedule")
        # No worker builds the runs, so no run may wait for the end of an earlier one.
        await self.execute(
            "UPDATE schedules SET overlap = 'allow',"
            f" next_fire_at = next_fire_at - interval '{nights} days'"
        )

    async def has_daily_schedule(self) -> bool:
        """Return whether the daily schedule is defined."""
        async with self.engine.connect() as connection:
            found = await connection.scalar(text("SELECT count(*) FROM schedules"))
        return bool(found)

    async def is_listening(self) -> bool:
        """Return whether a loop listens for notifications."""
        async with self.engine.connect() as connection:
            found = await connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND query ILIKE 'LISTEN %'"
                )
            )
        return bool(found)


def get_metric(metrics: SchedulerMetrics, name: str, **labels: str) -> float:
    """Return the value of a metric of the scheduler; 0 when it has none."""
    return metrics.registry.get_sample_value(f"daybook_scheduler_{name}", labels) or 0
