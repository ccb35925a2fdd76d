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
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog
import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine
from taskiq import AsyncBroker, TaskiqEvents, TaskiqState

from daybook_domain.runs.tasks import BUILD_REPORT
from daybook_platform import logging_setup
from daybook_platform.cache import invalidation
from daybook_platform.health import Check, HealthServer
from daybook_platform.postgres.engine import create_engine, create_sessions, ping
from daybook_platform.settings import load
from daybook_platform.taskiq_broker import Broker, create_broker, register
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.reports import ReportBuilder
from daybook_worker.roles import IntakeRole, ReportsRole, WorkerRole
from daybook_worker.settings import WorkerSettings

log = structlog.stdlib.get_logger(__name__)


ROLES = ("reports", "intake")


@dataclass(frozen=True)
class ReportComponents:
    """What builds reports, wired."""

    broker: Broker
    builder: ReportBuilder


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a worker until SIGTERM or SIGINT: `daybook-worker [reports|intake]`."""
    parser = argparse.ArgumentParser(
        prog="daybook-worker", description="Builds reports, and takes products and orders in."
    )
    parser.add_argument(
        "role", nargs="?", choices=ROLES, help="what to work on; without it: on everything"
    )
    role: str | None = parser.parse_args(arguments).role
    settings = _configure()
    uvloop.run(serve(settings, roles=_roles(settings, role)))


def create_worker() -> AsyncBroker:
    """Wire one worker process of TaskIQ's command line; see the head of this module."""
    settings = _configure()
    engine = _create_engine(settings, roles=["reports"])
    reports = wire_reports(settings, engine, WorkerMetrics())

    async def dispose(_: TaskiqState) -> None:
        await engine.dispose()

    reports.broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, dispose)
    return reports.broker


def _configure() -> WorkerSettings:
    settings = load(WorkerSettings)
    logging_setup.configure(log_format=settings.log_format, level=settings.log_level)
    return settings


def _roles(settings: WorkerSettings, role: str | None) -> Sequence[str]:
    """Return what can be worked on: without RabbitMQ nothing can be taken in."""
    if settings.broker_url.get_secret_value().startswith("amqp"):
        return [role] if role else ROLES
    if role == "intake":
        sys.stderr.write(
            "DAYBOOK_BROKER_URL: expected amqp://… for the role intake: producers use RabbitMQ\n"
        )
        raise SystemExit(2)
    if role is None:
        log.warning("products and orders are not taken in: DAYBOOK_BROKER_URL names no RabbitMQ")
    return ["reports"]


def _create_engine(settings: WorkerSettings, *, roles: Sequence[str]) -> AsyncEngine:
    return create_engine(
        settings.database_url.get_secret_value(),
        application="daybook-worker",
        # Each build has its own connection and one for its heartbeat; the intake has one for
        # messages and one for letters, and asks whether the database is there; readiness asks, too.
        pool_size=1 + (2 * settings.concurrency if "reports" in roles else 0) + 3,
        # A worker that was stopped while it claimed a run keeps the row from being taken back.
        idle_timeout=settings.lease_seconds,
    )


def wire_reports(
    settings: WorkerSettings, engine: AsyncEngine, metrics: WorkerMetrics
) -> ReportComponents:
    """Return what builds reports; nothing is connected yet."""
    broker = create_broker(
        settings.broker_url.get_secret_value(),
        application="daybook-worker",
        redis_url=settings.redis_url.get_secret_value(),
        prefetch=settings.concurrency,
    )
    builder = ReportBuilder(
        engine,
        timezone=settings.timezone,
        lease=settings.lease_seconds,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        metrics=metrics,
        at_once=settings.concurrency,
    )
    register(broker, BUILD_REPORT, builder.build)

    async def leave(_: TaskiqState) -> None:
        await builder.leave()

    broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, leave)
    return ReportComponents(broker=broker, builder=builder)


async def serve(settings: WorkerSettings, *, roles: Sequence[str]) -> None:
    """Work until a signal comes, then drain."""
    metrics = WorkerMetrics()
    engine = _create_engine(settings, roles=roles)
    sessions = create_sessions(engine)
    work: list[WorkerRole] = []
    if "reports" in roles:
        reports = wire_reports(settings, engine, metrics)
        work.append(ReportsRole(reports.broker, reports.builder, at_once=settings.concurrency))
    if "intake" in roles:
        work.append(IntakeRole(engine, settings, sessions=sessions, metrics=metrics))
    checks: dict[str, Check] = {"database": partial(ping, engine)}
    for each in work:
        checks |= each.checks
    health = HealthServer(
        host=settings.health_host,
        port=settings.health_port,
        checks=checks,
        registry=metrics.registry,
    )
    stopping = _stop_on_signals(work)
    caching = invalidation.cache_lifespan(
        sessions,
        # The intake changes what copies are kept of; building a report does not.
        settings.cache_url if "intake" in roles else "",
        registry=metrics.registry,
        timeout=settings.cache_timeout,
    )
    async with health, caching:
        working = [asyncio.create_task(each.run()) for each in work]
        try:
            await _first_of(*working, asyncio.create_task(stopping.wait()))
            for each in work:
                each.stop()
            await _drain(work, working, seconds=settings.drain_seconds.total_seconds())
        finally:
            for each in work:
                await each.close()
            await engine.dispose()
    log.info("stopped")


def _stop_on_signals(work: Sequence[WorkerRole]) -> asyncio.Event:
    """Return an event that the first signal sets; a second one breaks off what is under way."""
    stopping = asyncio.Event()

    def on_signal() -> None:
        for each in work:
            if stopping.is_set():
                each.abandon()
            each.stop()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stopping


async def _first_of(*tasks: asyncio.Task[object]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def _drain(
    work: Sequence[WorkerRole], working: Sequence[asyncio.Task[None]], *, seconds: float
) -> None:
    """Let what is under way finish within `seconds`, then give it back."""
    log.info("draining", seconds=seconds)
    _, unfinished = await asyncio.wait(working, timeout=seconds)
    if unfinished:
        log.warning("breaking off what is not finished")
        await asyncio.gather(*(each.leave() for each in work))
        await asyncio.wait(working, timeout=1)
    for task in working:
        if task.done():
            task.result()
        else:
            task.cancel()
