"""Roles of a worker process, with the one interface that starts and stops them."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine
from taskiq.acks import AcknowledgeType

from daybook_platform.health import Check
from daybook_platform.postgres.sessions import Sessions
from daybook_platform.taskiq_broker import Broker
from daybook_worker.dead_letter_retries import DeadLetterRetrier
from daybook_worker.intake import IntakeProcessor
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.receiver import Receiver
from daybook_worker.reports import ReportBuilder
from daybook_worker.settings import WorkerSettings

_CANCEL_TIMEOUT_SECONDS = 1.0


class WorkerRole(Protocol):
    """A role of the process, which finishes its active work when it is stopped."""

    checks: Mapping[str, Check]

    async def run(self) -> None:
        """Run until `stop`, and return when the active work is finished."""

    def stop(self) -> None:
        """Start no new work; active work continues."""

    def interrupt(self) -> None:
        """Cancel active work; returns immediately."""

    async def interrupt_and_wait(self) -> None:
        """Cancel active work, and return when it is handed back."""

    async def close(self) -> None:
        """Close the connections."""


class ReportsRole:
    """Consumption of run messages."""

    def __init__(self, broker: Broker, builder: ReportBuilder, *, concurrency: int) -> None:
        """Store the components; nothing is connected yet."""
        broker.is_worker_process = True
        self.checks: Mapping[str, Check] = {
            "broker": broker.ping,
            "claims": builder.require_claims,
        }
        self._broker = broker
        self._builder = builder
        self._concurrency = concurrency
        self._stop_requested = asyncio.Event()

    async def run(self) -> None:
        """Handle messages until `stop`, and return when the active builds are finished."""
        receiver = Receiver(
            self._broker, max_async_tasks=self._concurrency, ack_type=AcknowledgeType.WHEN_SAVED
        )
        await receiver.listen(self._stop_requested)

    def stop(self) -> None:
        """Claim no more runs; active builds continue."""
        self._builder.stop()
        self._stop_requested.set()

    def interrupt(self) -> None:
        """Cancel the active builds and release their runs; returns immediately."""
        self._builder.interrupt()

    async def interrupt_and_wait(self) -> None:
        """Cancel the active builds, and return when their runs are released."""
        await self._builder.interrupt_and_wait()

    async def close(self) -> None:
        """Close the connection to the broker."""
        await self._broker.shutdown()


class IntakeRole:
    """Consumption of the messages of producers, and the retries of dead letters."""

    def __init__(
        self,
        engine: AsyncEngine,
        settings: WorkerSettings,
        *,
        sessions: Sessions,
        metrics: WorkerMetrics,
    ) -> None:
        """Create the components; nothing is connected yet."""
        self._processor = IntakeProcessor(engine, settings, sessions=sessions, metrics=metrics)
        self._retrier = DeadLetterRetrier(settings, sessions=sessions, metrics=metrics)
        self._tasks: list[asyncio.Task[None]] = []
        self.checks: Mapping[str, Check] = {"intake": self._processor.ping}

    async def run(self) -> None:
        """Process messages and dead letters until `stop`."""
        self._tasks = [
            asyncio.create_task(self._processor.run()),
            asyncio.create_task(self._retrier.run()),
        ]
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    def stop(self) -> None:
        """Start no more batches; the active one is finished."""
        self._processor.stop()
        self._retrier.stop()

    def interrupt(self) -> None:
        """Roll back the active batch, which RabbitMQ redelivers; returns immediately."""
        self.stop()
        for task in self._tasks:
            task.cancel()

    async def interrupt_and_wait(self) -> None:
        """Roll back the active batch, and return when that is done."""
        self.interrupt()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CANCEL_TIMEOUT_SECONDS)

    async def close(self) -> None:
        """Do nothing: each component closes its connections at the end of `run`."""
