"""How is a worker wired, started and stopped?

`daybook-worker` runs one process. TaskIQ's own command does the same work with the same guarantees,
without health endpoints, in as many processes as it is told:

    taskiq worker daybook_worker.main:create_worker --receiver daybook_worker.receiver:Receiver

The receiver is optional (see there). `--wait-tasks-timeout` is that command's drain deadline, and
`--ack-type` must stay as it is: a message that is acknowledged before its handler has returned is
treated as dead.
"""

import argparse
import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog
import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine
from taskiq import AsyncBroker, TaskiqEvents, TaskiqState
from taskiq.acks import AcknowledgeType

from daybook_domain import logs
from daybook_domain.broker import Broker, create_broker, register
from daybook_domain.db import create_engine, ping
from daybook_domain.health import HealthServer
from daybook_domain.reports.tasks import BUILD_REPORT
from daybook_domain.settings import load
from daybook_worker.metrics import Metrics
from daybook_worker.receiver import Receiver
from daybook_worker.reports import ReportBuilder
from daybook_worker.settings import WorkerSettings

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Worker:
    """The parts of a worker, wired."""

    broker: Broker
    engine: AsyncEngine
    builder: ReportBuilder
    metrics: Metrics


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a worker until SIGTERM or SIGINT: `daybook-worker [reports]`."""
    parser = argparse.ArgumentParser(prog="daybook-worker", description="Builds reports.")
    parser.add_argument(
        "role",
        nargs="?",
        choices=["reports"],
        default="reports",
        help="what to work on: reports, the only role of this release",
    )
    parser.parse_args(arguments)
    uvloop.run(serve(_configure()))


def create_worker() -> AsyncBroker:
    """Wire one worker process of TaskIQ's command line; see the head of this module."""
    return wire(_configure()).broker


def _configure() -> WorkerSettings:
    settings = load(WorkerSettings)
    logs.configure(log_format=settings.log_format, level=settings.log_level)
    return settings


def wire(settings: WorkerSettings) -> Worker:
    """Return the parts of a worker; nothing is connected yet."""
    metrics = Metrics()
    engine = create_engine(
        settings.database_url.get_secret_value(),
        application="daybook-worker",
        # Each build has its own connection and one for its heartbeat; readiness asks, too.
        pool_size=2 * settings.concurrency + 1,
    )
    broker = create_broker(
        settings.broker_url.get_secret_value(),
        application="daybook-worker",
        redis_url=settings.redis_url.get_secret_value(),
        prefetch=settings.concurrency,
    )
    builder = ReportBuilder(
        engine,
        timezone=settings.timezone,
        lease=settings.lease,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        metrics=metrics,
    )
    register(broker, BUILD_REPORT, builder.build)

    async def leave(_: TaskiqState) -> None:
        await builder.leave()
        await engine.dispose()

    broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, leave)
    return Worker(broker=broker, engine=engine, builder=builder, metrics=metrics)


async def serve(settings: WorkerSettings) -> None:
    """Work until a signal comes, then drain."""
    worker = wire(settings)
    worker.broker.is_worker_process = True
    stopping = _stop_on_signals(worker)
    health = HealthServer(
        host=settings.health_host,
        port=settings.health_port,
        checks={"database": partial(ping, worker.engine), "broker": worker.broker.ping},
        registry=worker.metrics.registry,
    )
    async with health:
        finish = asyncio.Event()
        receiver = Receiver(
            worker.broker,
            max_async_tasks=settings.concurrency,
            ack_type=AcknowledgeType.WHEN_SAVED,
        )
        listening = asyncio.create_task(receiver.listen(finish))
        try:
            await _first_of(listening, asyncio.create_task(stopping.wait()))
            finish.set()
            await _drain(worker, listening, seconds=settings.drain_seconds)
        finally:
            await worker.broker.shutdown()
    log.info("stopped")


def _stop_on_signals(worker: Worker) -> asyncio.Event:
    """Return an event that the first signal sets; a second one breaks off what is under way."""
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            worker.builder.abandon()
        worker.builder.stop()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stopping


async def _first_of(*tasks: asyncio.Task[object]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def _drain(worker: Worker, listening: asyncio.Task[None], *, seconds: float) -> None:
    """Let running builds finish within `seconds`, then give them back."""
    log.info("draining", seconds=seconds)
    await asyncio.wait({listening}, timeout=seconds)
    if not listening.done():
        log.warning("breaking off what is not finished")
        await worker.builder.leave()
        await asyncio.wait({listening}, timeout=1)
    if listening.done():
        listening.result()
    else:
        listening.cancel()
