"""Who tells when a report is late? Each service that looks: by gauge, by log, to whoever asks."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry, Gauge

from daybook_domain import clock
from daybook_domain.postgres_errors import is_outage
from daybook_domain.schedules.lateness import LateDay, list_late_days
from daybook_platform.postgres.engine import Sessions

log = structlog.stdlib.get_logger(__name__)

LOOK_EVERY_SECONDS = 30.0


class LatenessMonitor:
    """Knows which reports were late when it last looked."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        registry: CollectorRegistry,
        timezone: str,
        late_after: timedelta,
    ) -> None:
        self._sessions = sessions
        self._timezone = timezone
        self._late_after = late_after
        self._late: Sequence[LateDay] = ()
        self._days = Gauge(
            "daybook_late_days",
            "Days whose report is not sealed DAYBOOK_LATE_AFTER seconds after it was due.",
            registry=registry,
        )
        self._seconds = Gauge(
            "daybook_late_seconds",
            "For how long the oldest of them has been due; 0 when none is late.",
            registry=registry,
        )

    @property
    def late(self) -> Sequence[LateDay]:
        """The days that were late at the last look, oldest first."""
        return self._late

    async def look(self) -> None:
        """Look, set the gauges, and tell the log what has changed."""
        async with self._sessions() as session:
            now = await clock.now(session)
            late = await list_late_days(
                session, timezone=self._timezone, late_after=self._late_after, now=now
            )
        self._days.set(len(late))
        self._seconds.set((now - late[0].due_at).total_seconds() if late else 0)
        before, self._late = set(self._late), late
        for day in late:
            if day not in before:
                log.error(
                    "a report is late", report_date=str(day.report_date), due_at=str(day.due_at)
                )
        for day in before.difference(late):
            log.info("a report is not late any more", report_date=str(day.report_date))

    async def run(self) -> None:
        """Look again and again, for ever; a database that is away is looked at later."""
        while True:
            try:
                await self.look()
            except Exception as error:
                if not is_outage(error):
                    log.warning("cannot look for late reports", reason=repr(error)[:200])
            await asyncio.sleep(LOOK_EVERY_SECONDS)
