"""Construction of the worker's components from its settings."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine
from taskiq import TaskiqEvents, TaskiqState

from daybook_domain.runs.tasks import BUILD_REPORT
from daybook_platform.postgres.engine import PING_TIMEOUT, create_engine
from daybook_platform.postgres.sessions import Sessions
from daybook_platform.taskiq_broker import Broker, create_broker, register
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.reports import ReportBuilder
from daybook_worker.roles import IntakeRole, ReportsRole, WorkerRole
from daybook_worker.settings import WorkerSettings

ROLES = ("reports", "intake")

_APPLICATION = "daybook-worker"


@dataclass(frozen=True)
class ReportComponents:
    """The builder of reports, and the broker whose messages it handles."""

    broker: Broker
    builder: ReportBuilder


def create_worker_engine(settings: WorkerSettings, *, roles: Sequence[str]) -> AsyncEngine:
    """Return an engine with a connection for everything that the roles do concurrently."""
    return create_engine(
        settings.database_url.get_secret_value(),
        application=_APPLICATION,
        # Each build uses a connection, and its heartbeat another; the intake uses one for messages,
        # one for dead letters and one to check the database; the readiness check uses one.
        pool_size=1 + (2 * settings.concurrency if "reports" in roles else 0) + 3,
        # The row lock of a worker that is suspended within its claim would keep the run from being
        # reaped.
        idle_timeout=settings.lease_seconds,
        # A heartbeat must have time for a new connection when its first one is silent.
        ping_timeout=min(PING_TIMEOUT, settings.lease_seconds / 6),
    )


def create_roles(
    settings: WorkerSettings,
    engine: AsyncEngine,
    *,
    sessions: Sessions,
    metrics: WorkerMetrics,
    names: Sequence[str],
) -> Sequence[WorkerRole]:
    """Return the named roles of `ROLES`; nothing is connected yet."""
    roles: list[WorkerRole] = []
    if "reports" in names:
        reports = wire_reports(settings, engine, metrics)
        roles.append(ReportsRole(reports.broker, reports.builder, concurrency=settings.concurrency))
    if "intake" in names:
        roles.append(IntakeRole(engine, settings, sessions=sessions, metrics=metrics))
    return roles


def wire_reports(
    settings: WorkerSettings, engine: AsyncEngine, metrics: WorkerMetrics
) -> ReportComponents:
    """Return a report builder that is bound to its broker; nothing is connected yet."""
    broker = create_broker(
        settings.broker_url.get_secret_value(),
        application=_APPLICATION,
        redis_url=settings.redis_url.get_secret_value(),
        prefetch=settings.concurrency,
    )
    builder = ReportBuilder(
        engine,
        timezone=settings.timezone,
        lease=settings.lease_seconds,
        outage_limit=settings.outage_retry_seconds,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        metrics=metrics,
        concurrency=settings.concurrency,
    )
    register(broker, BUILD_REPORT, builder.build)

    async def release_runs(_: TaskiqState) -> None:
        await builder.interrupt_and_wait()

    broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, release_runs)
    return ReportComponents(broker=broker, builder=builder)
