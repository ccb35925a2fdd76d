"""The API service: application factory and command."""

import logging
import signal
import sys
from functools import partial
from importlib.metadata import version
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from daybook_api import error_handlers, listening_socket, openapi, openapi_texts, routes
from daybook_api.addresses import endpoints as addresses
from daybook_api.asyncapi import endpoints as asyncapi
from daybook_api.backfills import endpoints as backfills
from daybook_api.dead_letters import endpoints as dead_letters
from daybook_api.events import endpoints as events
from daybook_api.health import endpoints as health
from daybook_api.lifespan import create_lifespan
from daybook_api.middleware import RequestMiddleware
from daybook_api.orders import endpoints as orders
from daybook_api.problem_kinds import endpoints as problem_kinds
from daybook_api.products import endpoints as products
from daybook_api.report_days import endpoints as report_days
from daybook_api.reports import endpoints as reports
from daybook_api.root import endpoints as root
from daybook_api.runs import endpoints as runs
from daybook_api.schedule_fires import endpoints as schedule_fires
from daybook_api.schedules import endpoints as schedules
from daybook_api.settings import ApiSettings
from daybook_api.taskiq_entries import endpoints as taskiq_entries
from daybook_api.users import endpoints as users
from daybook_domain.reports.errors import TimezoneMismatch
from daybook_platform import logging_setup, timezone_check
from daybook_platform.settings import load

log = structlog.stdlib.get_logger(__name__)

DRAIN_SECONDS = 25
"""Maximum time for open responses to complete; orchestrators usually kill after 30 seconds."""

FEATURES = (
    *(reports, health, products, users, orders),
    *(addresses, runs, report_days, backfills, events, schedule_fires, taskiq_entries, schedules),
    *(dead_letters, asyncapi, problem_kinds, root),
)
"""The features in the order in which their routes are matched.

FastAPI tries one route after the other, about 3 us each, so frequent ones come first. The fixed
paths of `schedule_fires` and `taskiq_entries` come before `/schedules/{schedule_id}`.
"""

FREQUENT = 5
"""Number of the most frequent features at the start of `FEATURES`."""


def create_app() -> FastAPI:
    """Return the application, configured by the environment.

    For `uvicorn daybook_api.main:create_app --factory`.
    """
    return build_app(_load_settings())


def build_app(settings: ApiSettings) -> FastAPI:
    """Return the application for `settings`; connections open when it starts."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    app = FastAPIOffline(
        title="Daybook",
        summary="A daily report of orders that its readers can trust.",
        version=version("daybook-api"),
        lifespan=create_lifespan(
            settings, registry=registry, on_mismatch=lambda error: _record_mismatch(app, error)
        ),
        responses=openapi.ERROR_RESPONSES,
        description=openapi_texts.DESCRIPTION,
        openapi_tags=openapi_texts.TAGS,
        generate_unique_id_function=openapi.operation_id,
        redirect_slashes=False,
    )
    app.state.timezone_mismatch = None
    app.add_middleware(RequestMiddleware, registry=registry)
    error_handlers.install(app)
    app.openapi = partial(openapi.build_openapi, app)  # type: ignore[method-assign]
    routers = [feature.router for feature in FEATURES]
    routers.append(routes.head_router(routers))
    # After the most frequent features, and before the paths with parameters that it concerns.
    refusals = routes.refusal_router(routers)
    for router in (*routers[:FREQUENT], refusals, *routers[FREQUENT:]):
        app.include_router(router)
    app.state.routes = [route for router in routers for route in routes.api_routes(router)]
    return app


def main() -> None:
    """Run the API until SIGTERM or SIGINT; exit with code 2 on invalid settings.

    As one of these counts a DAYBOOK_TIMEZONE that is not the zone of business days.
    """
    settings = _load_settings()
    app = build_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )
    with listening_socket.bind(
        settings.api_host, settings.api_port, stall_timeout=settings.stream_timeout
    ) as listener:
        # uvicorn drains, restores these handlers, and then raises the signal again.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, partial(_exit, app))
        log.info("starting", url=listening_socket.url_of(listener))
        try:
            server.run(sockets=[listener])
        finally:
            # uvicorn exits with a code of its own if the application does not start.
            _exit_on_mismatch(app)
    sys.exit(0 if server.started else 3)


def _load_settings() -> ApiSettings:
    settings = load(ApiSettings)
    logging_setup.configure(log_format=settings.log_format, level=settings.log_level)
    # Its messages repeat `starting`, `ready` and `stopping`.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return settings


def _record_mismatch(app: FastAPI, error: TimezoneMismatch) -> None:
    app.state.timezone_mismatch = error
    # The mismatch has been logged; uvicorn would add the traceback of the failed start.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def _exit_on_mismatch(app: FastAPI) -> None:
    if app.state.timezone_mismatch is not None:
        timezone_check.exit_because_of(app.state.timezone_mismatch)


def _exit(app: FastAPI, _signal: int, _frame: FrameType | None) -> None:
    _exit_on_mismatch(app)
    sys.exit(0)
