"""How does a test run the scheduler's loop, and see what it sends?"""

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
from daybook_platform.redis.schedule_source import RedisScheduleSource
from daybook_scheduler.loop import LoopConfig, SchedulerLoop
from daybook_scheduler.metrics import SchedulerMetrics
from tests.support.waiting import until

PLAN = LoopConfig(
    daily_cron="0 0 * * *",
    timezone="UTC",
    reconcile_days=3,
    dispatch_lease=timedelta(seconds=20),
    tick=timedelta(milliseconds=50),
)
PATIENT = replace(PLAN, tick=timedelta(minutes=10))
"""Whoever waits for this tick waits too long."""


class RecordingQueue:
    """Remembers what was sent; refuses while it is `away`, and sends nothing while it is `held`."""

    def __init__(self) -> None:
        self.sent: list[UUID] = []
        self.tried = 0
        self.away = False
        self.broken = False
        self.free = asyncio.Event()
        self.free.set()

    async def send(self, task: Task[P], payload: P) -> None:
        """Take one task."""
        self.tried += 1
        await self.free.wait()
        if self.away:
            raise Unavailable("RabbitMQ did not take the message")
        if self.broken:
            raise ArithmeticError("a mistake of ours")
        checked: BaseModel = payload
        assert isinstance(checked, BuildReport)
        self.sent.append(checked.run_id)

    async def has(self, *run_ids: UUID) -> None:
        """Wait until exactly these were sent."""

        async def sent() -> bool:
            return sorted(self.sent) == sorted(run_ids)

        await until(sent, what=f"sending {run_ids}, instead of {self.sent},")

    async def was_tried(self, times: int = 1) -> None:
        """Wait until so many sends have begun."""

        async def tried() -> bool:
            return self.tried >= times

        await until(tried, what=f"{times} tries")


class Loops:
    """Makes loops, and runs them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.sessions = create_sessions(engine)

    def make(
        self,
        queue: TaskQueue,
        *,
        plan: LoopConfig = PLAN,
        metrics: SchedulerMetrics | None = None,
        engine: AsyncEngine | None = None,
        taskiq: RedisScheduleSource | None = None,
    ) -> SchedulerLoop:
        """Return a loop that does not run yet."""
        return SchedulerLoop(
            engine=engine or self.engine,
            queue=queue,
            plan=plan,
            metrics=metrics or SchedulerMetrics(),
            taskiq=taskiq,
        )

    @asynccontextmanager
    async def running(
        self,
        queue: TaskQueue,
        *,
        plan: LoopConfig = PLAN,
        metrics: SchedulerMetrics | None = None,
        engine: AsyncEngine | None = None,
        taskiq: RedisScheduleSource | None = None,
    ) -> AsyncIterator[None]:
        """Run a loop for as long as the block takes."""
        stop = asyncio.Event()
        loop = self.make(queue, plan=plan, metrics=metrics, engine=engine, taskiq=taskiq)
        task = asyncio.create_task(loop.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, timeout=10)

    async def execute(self, statement: str) -> None:
        """Change the database as nobody should."""
        async with self.engine.begin() as connection:
            await connection.execute(text(statement))

    async def make_due(self, *, nights: int = 1) -> None:
        """Let the daily schedule have been due for so many nights, since long before now."""
        await until(self.is_defined, what="the definition of the daily schedule")
        # Nobody builds anything here, so no run may have to wait for the end of another.
        await self.execute(
            "UPDATE schedules SET overlap = 'allow',"
            f" next_fire_at = next_fire_at - interval '{nights} days'"
        )

    async def is_defined(self) -> bool:
        """Tell whether the schedule is there."""
        async with self.engine.connect() as connection:
            found = await connection.scalar(text("SELECT count(*) FROM schedules"))
        return bool(found)

    async def listens(self) -> bool:
        """Tell whether some loop hears notifications."""
        async with self.engine.connect() as connection:
            found = await connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND query ILIKE 'LISTEN %'"
                )
            )
        return bool(found)


def count(metrics: SchedulerMetrics, name: str, **labels: str) -> float:
    """Return the value of one of the scheduler's counters."""
    return metrics.registry.get_sample_value(f"daybook_scheduler_{name}", labels) or 0
