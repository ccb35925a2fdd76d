"""The state that all endpoints share, and the dependency that provides it."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from daybook_api.entity_reader import EntityReader
from daybook_api.event_hub import EventHub
from daybook_api.report_reader import ReportReader
from daybook_domain import clock
from daybook_domain.reports.business_day import local_date
from daybook_platform.lateness_monitor import LatenessMonitor
from daybook_platform.postgres.sessions import Sessions
from daybook_platform.timezone_check import TimezoneCheck


@dataclass(frozen=True)
class AppState:
    """Connections and settings that the endpoints use, created when the application starts."""

    sessions: Sessions
    reports: ReportReader
    entities: EntityReader
    events: EventHub
    timezone: str
    timezone_check: TimezoneCheck
    idempotency_retention: timedelta
    late_after: timedelta
    lateness: LatenessMonitor
    registry: CollectorRegistry

    async def today(self) -> date:
        """Return the current business day."""
        async with self.sessions() as session:
            return local_date(await clock.now(session), timezone=self.timezone)


async def get_app_state(request: Request) -> AppState:
    """Return the state of the running application."""
    # A coroutine, because FastAPI runs a plain function in a thread for each request.
    app_state: AppState = request.app.state.daybook
    return app_state


App = Annotated[AppState, Depends(get_app_state)]
