"""What can a worker work on, seen by whoever starts and stops it?"""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine
from taskiq.acks import AcknowledgeType

from daybook_platform.health import Check
from daybook_platform.postgres.engine import Sessions
from daybook_platform.taskiq_broker import Broker
from daybook_worker.dead_letter_retries import DeadLetterRetrier
from daybook_worker.intake import IntakeProcessor
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.receiver import Receiver
from daybook_worker.reports import ReportBuilder
from daybook_worker.settings import WorkerSettings


class WorkerRole(Protocol):
    """One role; told to stop, it finishes what is under way."""

    checks: Mapping[str, Check]

    async def run(self) -> None:
        """Work until `stop`."""

    def stop(self) -> None:
        """Begin with nothing new."""

    def abandon(self) -> None:
        """Break off what is under way."""

    async def leave(self) -> None:
        """Break off what is under way, and return when it was given back."""

    async def close(self) -> None:
        """Hang up."""


class ReportsRole:
    """Builds the reports that run messages ask for."""

    def __init__(self, broker: Broker, builder: ReportBuilder, *, at_once: int) -> None:
        """Take over the parts; nothing is connected yet."""
        broker.is_worker_process = True
        self.checks: Mapping[str, Check] = {"broker": broker.ping}
        self._broker = broker
        self._builder = builder
        self._at_once = at_once
        self._finish = asyncio.Event()

    async def run(self) -> None:
        """Work until `stop`."""
        receiver = Receiver(
            self._broker, max_async_tasks=self._at_once, ack_type=AcknowledgeType.WHEN_SAVED
        )
        await receiver.listen(self._finish)

    def stop(self) -> None:
        """Begin with no more runs."""
        self._builder.stop()
        self._finish.set()

    def abandon(self) -> None:
        """Break off the runs under way and give them back."""
        self._builder.abandon()

    async def leave(self) -> None:
        """Give back what is under way, and return when that is done."""
        await self._builder.leave()

    async def close(self) -> None:
        """Hang up."""
        await self._broker.shutdown()


class IntakeRole:
    """Takes messages in, and tries dead letters again."""

    def __init__(
        self,
        engine: AsyncEngine,
        settings: WorkerSettings,
        *,
        sessions: Sessions,
        metrics: WorkerMetrics,
    ) -> None:
        """Wire the parts; nothing is connected yet."""
        self._intake = IntakeProcessor(engine, settings, sessions=sessions, metrics=metrics)
        self._rounds = DeadLetterRetrier(settings, sessions=sessions, metrics=metrics)
        self._running: list[asyncio.Task[None]] = []
        self.checks: Mapping[str, Check] = {"intake": self._intake.ping}

    async def run(self) -> None:
        """Work until `stop`."""
        self._running = [
            asyncio.create_task(self._intake.run()),
            asyncio.create_task(self._rounds.run()),
        ]
        await asyncio.wait(self._running)
        for task in self._running:
            if not task.cancelled():
                task.result()

    def stop(self) -> None:
        """Begin with no more batches."""
        self._intake.stop()
        self._rounds.stop()

    def abandon(self) -> None:
        """Roll back the batch under way; RabbitMQ gives it to another worker."""
        self.stop()
        for task in self._running:
            task.cancel()

    async def leave(self) -> None:
        """Roll back the batch under way, and return when that is done."""
        self.abandon()
        if self._running:
            await asyncio.wait(self._running, timeout=1)

    async def close(self) -> None:
        """Do nothing more: each part has hung up when it ended."""
