"""Entry points of the worker.

`daybook-worker` runs one process. TaskIQ's own command does the same work with the same guarantees,
in as many processes as `--workers` asks for, but without health endpoints:

    taskiq worker daybook_worker.main:create_worker --receiver daybook_worker.receiver:Receiver

The receiver is optional (see there). `--wait-tasks-timeout` is that command's drain timeout, and
`--ack-type` must keep its default: a message that is acknowledged before its handler has returned
is dead-lettered.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from functools import partial

import structlog
import uvloop
from taskiq import AsyncBroker, TaskiqEvents, TaskiqState

from daybook_domain.reports.errors import TimezoneMismatch
from daybook_platform import logging_setup, timezone_check
from daybook_platform.health import Check, HealthServer
from daybook_platform.postgres.engine import create_sessions, ping
from daybook_platform.postgres.engine import dispose as dispose_engine
from daybook_platform.settings import load
from daybook_platform.timezone_check import TimezoneCheck
from daybook_worker import shutdown, wiring
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.roles import WorkerRole
from daybook_worker.settings import WorkerSettings

log = structlog.stdlib.get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a worker until SIGTERM or SIGINT: `daybook-worker [reports|intake]`."""
    parser = argparse.ArgumentParser(
        prog="daybook-worker",
        description="Build reports, and consume the messages of product and order producers.",
    )
    parser.add_argument(
        "role", nargs="?", choices=wiring.ROLES, help="role of the process (default: all roles)"
    )
    role: str | None = parser.parse_args(arguments).role
    settings = _configure()
    try:
        uvloop.run(serve(settings, roles=_select_roles(settings, role)))
    except TimezoneMismatch as error:
        timezone_check.exit_because_of(error)


def create_worker() -> AsyncBroker:
    """Return the broker of one worker process of TaskIQ's command; see the module docstring."""
    settings = _configure()
    engine = wiring.create_worker_engine(settings, roles=["reports"])
    reports = wiring.wire_reports(settings, engine, WorkerMetrics())
    zone = TimezoneCheck(create_sessions(engine), timezone=settings.timezone)

    async def confirm_timezone(_: TaskiqState) -> None:
        try:
            await zone.confirm(unless=asyncio.Event())
        except TimezoneMismatch as error:
            timezone_check.exit_because_of(error)

    async def dispose(_: TaskiqState) -> None:
        await dispose_engine(engine)

    reports.broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, confirm_timezone)
    reports.broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, dispose)
    return reports.broker


def _configure() -> WorkerSettings:
    settings = load(WorkerSettings)
    logging_setup.configure(log_format=settings.log_format, level=settings.log_level)
    return settings


def _select_roles(settings: WorkerSettings, role: str | None) -> Sequence[str]:
    """Return the roles to run: all, or the requested one; the intake requires RabbitMQ."""
    if settings.broker_url.get_secret_value().startswith("amqp"):
        return [role] if role else wiring.ROLES
    if role == "intake":
        sys.stderr.write(
            "DAYBOOK_BROKER_URL: expected amqp://… for the role intake, which consumes from"
            " RabbitMQ only\n"
        )
        raise SystemExit(2)
    if role is None:
        log.warning("intake disabled: DAYBOOK_BROKER_URL is not the URL of a RabbitMQ")
    return ["reports"]


async def serve(settings: WorkerSettings, *, roles: Sequence[str]) -> None:
    """Run the roles until a signal arrives, then drain.

    Raises `TimezoneMismatch` before they start if business days are in another time zone.
    """
    metrics = WorkerMetrics()
    engine = wiring.create_worker_engine(settings, roles=roles)
    sessions = create_sessions(engine)
    active = wiring.create_roles(settings, engine, sessions=sessions, metrics=metrics, names=roles)
    zone = TimezoneCheck(sessions, timezone=settings.timezone)
    checks: dict[str, Check] = {
        "database": partial(ping, engine),
        "timezone": zone.require_confirmed,
    }
    for role in active:
        checks |= role.checks
    health = HealthServer(
        host=settings.health_host,
        port=settings.health_port,
        checks=checks,
        registry=metrics.registry,
    )
    stop_requested = shutdown.handle_signals(active)
    async with health:
        try:
            if await zone.confirm(unless=stop_requested):
                await _run_roles(active, settings, stop_requested=stop_requested)
        finally:
            for role in active:
                await role.close()
            await dispose_engine(engine)
    log.info("worker stopped")


async def _run_roles(
    roles: Sequence[WorkerRole], settings: WorkerSettings, *, stop_requested: asyncio.Event
) -> None:
    tasks = [asyncio.create_task(role.run()) for role in roles]
    await asyncio.wait(
        (*tasks, asyncio.create_task(stop_requested.wait())), return_when=asyncio.FIRST_COMPLETED
    )
    for role in roles:
        role.stop()
    await shutdown.drain(roles, tasks, timeout_seconds=settings.drain_seconds.total_seconds())
