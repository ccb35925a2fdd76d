"""Entry points of the scheduler, and the construction of its components."""

import asyncio
import signal
from datetime import timedelta
from functools import partial

import structlog
import uvloop
from taskiq import TaskiqScheduler

from daybook_domain.reports.errors import TimezoneMismatch
from daybook_platform import logging_setup, timezone_check
from daybook_platform.health import HealthServer
from daybook_platform.lateness_monitor import LatenessMonitor
from daybook_platform.postgres.engine import create_engine, create_sessions, dispose, ping
from daybook_platform.redis.taskiq_schedule_source import RedisScheduleSource
from daybook_platform.settings import load
from daybook_platform.taskiq_broker import Broker, TaskIQQueue, create_broker
from daybook_platform.timezone_check import TimezoneCheck
from daybook_scheduler.loop import SchedulerLoop
from daybook_scheduler.loop_config import LoopConfig
from daybook_scheduler.metrics import SchedulerMetrics
from daybook_scheduler.settings import SchedulerSettings
from daybook_scheduler.taskiq_command import RunSource

log = structlog.stdlib.get_logger(__name__)

_APPLICATION = "daybook-scheduler"

_POOL_SIZE = 14
"""A connection for each step, one to listen, and some for the health checks."""

_IDLE_TIMEOUT = timedelta(seconds=10)
"""Maximum time that the row locks of a suspended scheduler block the others."""

_MAX_LATE_DAYS = 31
"""Maximum number of late days that `/readyz` lists."""


def main() -> None:
    """Run one scheduler until SIGTERM or SIGINT: `daybook-scheduler`."""
    settings = _configure()
    try:
        uvloop.run(_serve_until_signal(settings))
    except TimezoneMismatch as error:
        timezone_check.exit_because_of(error)


def create_scheduler() -> TaskiqScheduler:
    """Return one scheduler for `taskiq scheduler daybook_scheduler.main:create_scheduler`."""
    settings = _configure()
    return TaskiqScheduler(
        # TaskIQ sends nothing through it: see `RunSource`.
        broker=_create_broker(settings),
        sources=[RunSource(partial(serve, settings))],
    )


async def serve(settings: SchedulerSettings, stop: asyncio.Event) -> None:
    """Run one scheduler until `stop` is set.

    Raises `TimezoneMismatch` before its first step if business days are in another time zone.
    """
    engine = create_engine(
        settings.database_url.get_secret_value(),
        application=_APPLICATION,
        pool_size=_POOL_SIZE,
        idle_timeout=_IDLE_TIMEOUT,
    )
    broker, metrics = _create_broker(settings), SchedulerMetrics()
    sessions = create_sessions(engine)
    zone = TimezoneCheck(sessions, timezone=settings.timezone)
    lateness = LatenessMonitor(
        sessions=sessions,
        registry=metrics.registry,
        timezone=settings.timezone,
        late_after=settings.late_after,
    )
    taskiq = _create_taskiq_source(settings)
    loop = SchedulerLoop(
        engine=engine,
        queue=TaskIQQueue(broker),
        config=_create_loop_config(settings),
        metrics=metrics,
        taskiq=taskiq,
    )
    health = HealthServer(
        host=settings.health_host,
        port=settings.health_port,
        checks={
            "postgres": partial(ping, engine),
            "timezone": zone.require_confirmed,
            "broker": broker.ping,
            "daily_schedule": loop.daily_schedule.require_defined,
        },
        registry=metrics.registry,
        details=lambda: {
            "late_days": [str(day.report_date) for day in lateness.late[-_MAX_LATE_DAYS:]]
        },
    )
    await broker.startup()
    monitoring = None
    try:
        async with health:
            log.info("scheduler started")
            if await zone.confirm(unless=stop):
                monitoring = asyncio.create_task(lateness.run())
                await loop.run(stop)
            log.info("scheduler stopped")
    finally:
        if monitoring is not None:
            monitoring.cancel()
        await broker.shutdown()
        if taskiq is not None:
            await taskiq.close()
        await dispose(engine)


def _configure() -> SchedulerSettings:
    settings = load(SchedulerSettings)
    logging_setup.configure(log_format=settings.log_format, level=settings.log_level)
    return settings


async def _serve_until_signal(settings: SchedulerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


def _create_taskiq_source(settings: SchedulerSettings) -> RedisScheduleSource | None:
    url = settings.redis_url.get_secret_value()
    return RedisScheduleSource(url, prefix=settings.taskiq_prefix) if url else None


def _create_broker(settings: SchedulerSettings) -> Broker:
    return create_broker(settings.broker_url.get_secret_value(), application=_APPLICATION)


def _create_loop_config(settings: SchedulerSettings) -> LoopConfig:
    return LoopConfig(
        daily_cron=settings.daily_cron,
        timezone=settings.timezone,
        reconcile_days=settings.reconcile_days,
        ledger_days=settings.ledger_days,
        outage_limit=settings.outage_retry_seconds,
        dispatch_lease=settings.dispatch_lease_seconds,
        queue_lease=settings.queue_lease_seconds,
    )
