"""How is the API wired, and how does it run?"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api import dependencies, errors
from daybook_api.addresses import endpoints as addresses
from daybook_api.asyncapi import endpoints as asyncapi
from daybook_api.backfills import endpoints as backfills
from daybook_api.dead_letters import endpoints as dead_letters
from daybook_api.event_hub import EventHub
from daybook_api.events import endpoints as events
from daybook_api.health import endpoints as health
from daybook_api.middleware import RequestMiddleware
from daybook_api.orders import endpoints as orders
from daybook_api.products import endpoints as products
from daybook_api.report_days import endpoints as days
from daybook_api.reports import endpoints as document
from daybook_api.reports.streams import ReportReader
from daybook_api.root import endpoints as index
from daybook_api.runs import endpoints as runs
from daybook_api.schedule_fires import endpoints as fires
from daybook_api.schedules import endpoints as resource
from daybook_api.settings import ApiSettings
from daybook_api.shutdown import call_before_shutdown
from daybook_api.users import endpoints as users
from daybook_domain.pg_channels import EVENTS_CHANNEL
from daybook_platform import logging_setup
from daybook_platform.cache import invalidation
from daybook_platform.lateness_monitor import LatenessMonitor
from daybook_platform.postgres.engine import create_engine, create_sessions, create_stream_pool
from daybook_platform.postgres.pg_listen import listen
from daybook_platform.settings import load

log = structlog.stdlib.get_logger(__name__)

CONNECTIONS = 11
"""Ten for requests, and one that listens."""

IDLE = timedelta(seconds=30)
"""So long what a stopped api has locked, such as a schedule, is kept from the others."""

DRAIN_SECONDS = 25
"""How long a stop waits for answers under way; orchestrators tend to kill after 30 seconds."""


def create_app() -> FastAPI:
    """Wire the API as the environment says: `uvicorn daybook_api.main:create_app --factory`."""
    return build_app(_configure())


def build_app(settings: ApiSettings) -> FastAPI:
    """Wire the API as `settings` say; nothing is connected before it starts."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    app = FastAPIOffline(
        title="Daybook",
        summary="A daily report of orders that its readers can trust.",
        version=version("daybook-api"),
        lifespan=_lifespan(settings, registry=registry),
        responses=errors.DOCUMENTED,
        redirect_slashes=False,
    )
    app.add_middleware(RequestMiddleware, registry=registry)
    errors.install(app)
    # The document of the whole API needs the shape of a problem, which no endpoint returns.
    app.openapi = partial(errors.document, app)  # type: ignore[method-assign]
    for room in (
        *(document, runs, backfills, days, events, fires, resource),
        *(users, addresses, products, orders, dead_letters, asyncapi, health, index),
    ):
        app.include_router(room.router)
    return app


def _lifespan(
    settings: ApiSettings, *, registry: CollectorRegistry
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    url = settings.database_url.get_secret_value()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = create_engine(
            url,
            application="daybook-api",
            pool_size=CONNECTIONS,
            statement_timeout=settings.query_timeout,
            idle_timeout=IDLE,
        )
        news = EventHub(readers=settings.event_readers)
        sessions = create_sessions(engine)
        watch = LatenessMonitor(
            sessions=sessions,
            registry=registry,
            timezone=settings.timezone,
            late_after=settings.late_after,
        )
        pool = create_stream_pool(
            url, application="daybook-api reports", size=settings.stream_limit
        )
        caching = invalidation.cache_lifespan(
            sessions, settings.cache_url, registry=registry, timeout=settings.cache_timeout
        )
        async with pool, caching as cache, _listening(engine, news):
            app.state.wiring = dependencies.AppState(
                sessions=sessions,
                cache=cache,
                reports=ReportReader(pool, patience=settings.stream_timeout),
                events=news,
                timezone=settings.timezone,
                idempotency_retention=settings.idempotency_retention,
                late_after=settings.late_after,
                watch=watch,
                registry=registry,
            )
            watching = asyncio.create_task(watch.run())
            log.info("ready")
            with call_before_shutdown(news.close):
                yield
            log.info("stopping")
            watching.cancel()
            # Whoever still reads was given its time; closing politely would wait for it.
            pool.terminate()
        await engine.dispose()

    return lifespan


@asynccontextmanager
async def _listening(engine: AsyncEngine, news: EventHub) -> AsyncIterator[None]:
    """Pass on what the database tells, for as long as the block takes."""

    def begin() -> None:
        log.info("listening for changes")
        news.reset()

    task = asyncio.create_task(listen(engine, EVENTS_CHANNEL, on_notify=news.tell, on_listen=begin))
    try:
        yield
    finally:
        news.close()
        task.cancel()
        await asyncio.wait([task])


def main() -> None:
    """Run the API until SIGTERM or SIGINT; exit code 2 when it was told something wrong."""
    settings = _configure()
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(settings),
            loop="uvloop",
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )
    with _listen(settings) as listener:
        # uvicorn drains, and then raises the signal again for whoever handled it before.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
        log.info("starting", url=_url(listener))
        server.run(sockets=[listener])
    sys.exit(0 if server.started else 3)


def _configure() -> ApiSettings:
    settings = load(ApiSettings)
    logging_setup.configure(log_format=settings.log_format, level=settings.log_level)
    # It tells at length what `starting`, `ready` and `stopping` tell.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return settings


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _listen(settings: ApiSettings) -> socket.socket:
    host, port = settings.api_host, settings.api_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Connections inherit it: the kernel ends one whose peer takes nothing for so long, with
        # what is left in its buffers. An ASGI application cannot, it has no hand on the socket.
        milliseconds = int(settings.stream_timeout.total_seconds() * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # Whoever comes before the start is over waits for that, instead of being refused.
        listener.listen()
    except OSError as error:
        sys.stderr.write(f"{_refuse(host, port, error)}\n")
        raise SystemExit(2) from None
    return listener


def _refuse(host: str, port: int, error: OSError) -> str:
    reason = error.strerror or str(error)
    if isinstance(error, socket.gaierror):
        return f"DAYBOOK_API_HOST: {host} is no address to listen on ({reason}); try 127.0.0.1"
    return f"DAYBOOK_API_PORT: cannot listen on {host}:{port} ({reason}); choose a free port"


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
