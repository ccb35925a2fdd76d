"""How is the scheduler wired, started and stopped?"""

import asyncio
import signal
from datetime import timedelta
from functools import partial

import structlog
import uvloop
from taskiq import TaskiqScheduler

from daybook_platform import logging_setup
from daybook_platform.health import HealthServer
from daybook_platform.lateness_monitor import LatenessMonitor
from daybook_platform.postgres.engine import create_engine, create_sessions, ping
from daybook_platform.redis.schedule_source import RedisScheduleSource
from daybook_platform.settings import load
from daybook_platform.taskiq_broker import Broker, TaskIQQueue, create_broker
from daybook_scheduler.loop import LoopConfig, SchedulerLoop
from daybook_scheduler.metrics import SchedulerMetrics
from daybook_scheduler.settings import SchedulerSettings
from daybook_scheduler.taskiq_source import RunSource

log = structlog.stdlib.get_logger(__name__)

NAME = "daybook-scheduler"

CONNECTIONS = 14
"""One for each step, one that listens, and some for the health checks."""

IDLE = timedelta(seconds=10)
"""So long what a stopped scheduler has locked, such as a due schedule, is kept from the others."""

MOST_LATE = 31
"""How many late days `/readyz` names."""


def main() -> None:
    """Run one scheduler until it is asked to end: `daybook-scheduler`."""
    settings = _configure()
    uvloop.run(_until_signalled(settings))


def create_scheduler() -> TaskiqScheduler:
    """Wire one scheduler for `taskiq scheduler daybook_scheduler.main:create_scheduler`."""
    settings = _configure()
    return TaskiqScheduler(
        # It has nothing to send: see `RunSource`.
        broker=_create_broker(settings),
        sources=[RunSource(partial(serve, settings))],
    )


async def serve(settings: SchedulerSettings, stop: asyncio.Event) -> None:
    """Be one scheduler until `stop` is set."""
    engine = create_engine(
        settings.database_url.get_secret_value(),
        application=NAME,
        pool_size=CONNECTIONS,
        idle_timeout=IDLE,
    )
    broker, metrics = _create_broker(settings), SchedulerMetrics()
    watch = LatenessMonitor(
        sessions=create_sessions(engine),
        registry=metrics.registry,
        timezone=settings.timezone,
        late_after=settings.late_after,
    )
    taskiq = _schedules_of_taskiq(settings)
    loop = SchedulerLoop(
        engine=engine,
        queue=TaskIQQueue(broker),
        plan=_plan(settings),
        metrics=metrics,
        taskiq=taskiq,
    )
    health = HealthServer(
        host=settings.health_host,
        port=settings.health_port,
        checks={
            "postgres": partial(ping, engine),
            "broker": broker.ping,
            "daily_schedule": loop.require_defined,
        },
        registry=metrics.registry,
        details=lambda: {"late_days": [str(day.report_date) for day in watch.late[-MOST_LATE:]]},
    )
    await broker.startup()
    watching = asyncio.create_task(watch.run())
    try:
        async with health:
            log.info("scheduler started")
            await loop.run(stop)
            log.info("scheduler stopped")
    finally:
        watching.cancel()
        await broker.shutdown()
        if taskiq is not None:
            await taskiq.close()
        await engine.dispose()


def _configure() -> SchedulerSettings:
    settings = load(SchedulerSettings)
    logging_setup.configure(log_format=settings.log_format, level=settings.log_level)
    return settings


async def _until_signalled(settings: SchedulerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


def _schedules_of_taskiq(settings: SchedulerSettings) -> RedisScheduleSource | None:
    url = settings.redis_url.get_secret_value()
    return RedisScheduleSource(url, prefix=settings.taskiq_prefix) if url else None


def _create_broker(settings: SchedulerSettings) -> Broker:
    return create_broker(settings.broker_url.get_secret_value(), application=NAME)


def _plan(settings: SchedulerSettings) -> LoopConfig:
    return LoopConfig(
        daily_cron=settings.daily_cron,
        timezone=settings.timezone,
        reconcile_days=settings.reconcile_days,
        ledger_days=settings.ledger_days,
        dispatch_lease=settings.dispatch_lease_seconds,
        queue_lease=settings.queue_lease_seconds,
    )
