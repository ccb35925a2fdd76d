"""What may an endpoint ask for?"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from daybook_api.news import Events
from daybook_api.streams import Reports
from daybook_domain import clock, db
from daybook_domain.cache.store import Cache
from daybook_domain.reports.calendar import local_date
from daybook_domain.watch import LatenessWatch


@dataclass(frozen=True)
class Wiring:
    """What the endpoints share, built by `main.py` once the event loop runs."""

    sessions: db.Sessions
    cache: Cache | None
    reports: Reports
    events: Events
    timezone: str
    idempotency_retention: timedelta
    late_after: timedelta
    watch: LatenessWatch
    registry: CollectorRegistry

    async def today(self) -> date:
        """Return the business day that is going on."""
        async with self.sessions() as session:
            return local_date(await clock.now(session), timezone=self.timezone)


async def _wiring(request: Request) -> Wiring:
    # Not a plain function: FastAPI would send it to a thread for each request.
    wiring: Wiring = request.app.state.wiring
    return wiring


App = Annotated[Wiring, Depends(_wiring)]
