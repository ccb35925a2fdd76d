"""Start and shutdown of the application: connections, background tasks and shared state."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api.dependencies import AppState
from daybook_api.entity_reader import EntityReader
from daybook_api.event_hub import EventHub
from daybook_api.read_connections import ReadConnections
from daybook_api.report_reader import ReportReader
from daybook_api.settings import ApiSettings
from daybook_api.shutdown import call_before_shutdown
from daybook_domain.pg_channels import EVENTS_CHANNEL
from daybook_domain.reports.errors import TimezoneMismatch
from daybook_platform.lateness_monitor import LatenessMonitor
from daybook_platform.postgres.engine import (
    create_engine,
    create_sessions,
    create_stream_pool,
    dispose,
)
from daybook_platform.postgres.pg_listen import listen
from daybook_platform.timezone_check import TimezoneCheck

log = structlog.stdlib.get_logger(__name__)

POOL_SIZE = 11
"""Number of connections: ten for requests and one that listens for notifications."""

READ_POOL_SIZE = 6
"""Number of connections for small reports, editions and single entities."""

IDLE_IN_TRANSACTION_TIMEOUT = timedelta(seconds=30)
"""Time after which Postgres releases the locks of a suspended process."""

TIMEZONE_TIMEOUT = timedelta(seconds=2)
"""Maximum delay of the start by the comparison of time zones; later it is made while serving."""


def create_lifespan(
    settings: ApiSettings,
    *,
    registry: CollectorRegistry,
    on_mismatch: Callable[[TimezoneMismatch], None],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return the lifespan of an application; it sets `app.state.daybook`.

    `on_mismatch` is called before the process ends because business days are in another time zone.
    """
    url = settings.database_url.get_secret_value()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = create_engine(
            url,
            application="daybook-api",
            pool_size=POOL_SIZE,
            idle_timeout=IDLE_IN_TRANSACTION_TIMEOUT,
        )
        events = EventHub(max_subscriptions=settings.event_readers)
        sessions = create_sessions(engine, timeout=settings.query_timeout)
        zone = TimezoneCheck(sessions, timezone=settings.timezone)
        try:
            confirmed = await zone.try_to_confirm(timeout=TIMEZONE_TIMEOUT)
        except TimezoneMismatch as error:
            await dispose(engine)
            on_mismatch(error)
            raise
        lateness = LatenessMonitor(
            sessions=sessions,
            registry=registry,
            timezone=settings.timezone,
            late_after=settings.late_after,
        )
        stream_pool = create_stream_pool(
            url, application="daybook-api reports", size=settings.stream_limit
        )
        read_pool = create_stream_pool(url, application="daybook-api reads", size=READ_POOL_SIZE)
        async with stream_pool, read_pool, _listening(engine, events):
            small_reads = ReadConnections(read_pool)
            app.state.daybook = AppState(
                sessions=sessions,
                reports=ReportReader(
                    small_reads=small_reads,
                    streams=ReadConnections(stream_pool),
                    stall_timeout=settings.stream_timeout,
                ),
                entities=EntityReader(small_reads, timeout=settings.query_timeout),
                events=events,
                timezone=settings.timezone,
                timezone_check=zone,
                idempotency_retention=settings.idempotency_retention,
                late_after=settings.late_after,
                lateness=lateness,
                registry=registry,
            )
            monitoring = asyncio.create_task(lateness.run())
            confirming = None if confirmed else asyncio.create_task(_confirm(zone, on_mismatch))
            log.info("ready")
            with call_before_shutdown(events.close):
                yield
            log.info("stopping")
            monitoring.cancel()
            if confirming is not None:
                confirming.cancel()
            # Open streams had their time to complete; closing the pool would wait for them.
            stream_pool.terminate()
            read_pool.terminate()
        await dispose(engine)

    return lifespan


async def _confirm(zone: TimezoneCheck, on_mismatch: Callable[[TimezoneMismatch], None]) -> None:
    """Compare the time zones as soon as Postgres is reachable, and end the process otherwise."""
    try:
        await zone.confirm(unless=asyncio.Event())
    except TimezoneMismatch as error:
        on_mismatch(error)
        # uvicorn drains open requests before it ends.
        os.kill(os.getpid(), signal.SIGTERM)


@asynccontextmanager
async def _listening(engine: AsyncEngine, events: EventHub) -> AsyncIterator[None]:
    """Publish the notifications of the database to `events` while the block runs."""

    def on_listen() -> None:
        log.info("listening for changes")
        events.publish_reset()

    task = asyncio.create_task(
        listen(engine, EVENTS_CHANNEL, on_notify=events.publish, on_listen=on_listen)
    )
    try:
        yield
    finally:
        events.close()
        task.cancel()
        await asyncio.wait([task])
