"""What may an endpoint ask for?"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from daybook_api.event_hub import EventHub
from daybook_api.reports.streams import ReportReader
from daybook_domain import clock
from daybook_domain.reports.business_day import local_date
from daybook_platform.cache.client import Cache
from daybook_platform.lateness_monitor import LatenessMonitor
from daybook_platform.postgres import engine


@dataclass(frozen=True)
class AppState:
    """What the endpoints share, built by `main.py` once the event loop runs."""

    sessions: engine.Sessions
    cache: Cache | None
    reports: ReportReader
    events: EventHub
    timezone: str
    idempotency_retention: timedelta
    late_after: timedelta
    watch: LatenessMonitor
    registry: CollectorRegistry

    async def today(self) -> date:
        """Return the business day that is going on."""
        async with self.sessions() as session:
            return local_date(await clock.now(session), timezone=self.timezone)


async def _wiring(request: Request) -> AppState:
    # Not a plain function: FastAPI would send it to a thread for each request.
    wiring: AppState = request.app.state.wiring
    return wiring


App = Annotated[AppState, Depends(_wiring)]
