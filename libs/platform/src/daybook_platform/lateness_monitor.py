"""Detection of late reports, for gauges, the log and readiness details."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry, Gauge

from daybook_domain import clock
from daybook_domain.postgres_errors import is_outage
from daybook_domain.schedules.lateness import LateDay, list_late_days
from daybook_platform.postgres.sessions import Sessions

log = structlog.stdlib.get_logger(__name__)

CHECK_INTERVAL_SECONDS = 30.0


class LatenessMonitor:
    """The late reports as of the latest check.

    Every service that monitors runs its own: a late report is noticed even if every scheduler is
    down.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        registry: CollectorRegistry,
        timezone: str,
        late_after: timedelta,
        interval_seconds: float = CHECK_INTERVAL_SECONDS,
    ) -> None:
        self._sessions = sessions
        self._timezone = timezone
        self._late_after = late_after
        self._interval_seconds = interval_seconds
        self._late: Sequence[LateDay] = ()
        self._count_gauge = Gauge(
            "daybook_late_days",
            "Days whose report is not sealed DAYBOOK_LATE_AFTER seconds after it was due.",
            registry=registry,
        )
        self._age_gauge = Gauge(
            "daybook_late_seconds",
            "Seconds since the oldest late report was due; 0 when none is late.",
            registry=registry,
        )

    @property
    def late(self) -> Sequence[LateDay]:
        """The days that were late at the latest check, oldest first."""
        return self._late

    async def check(self) -> None:
        """Query the late days, set the gauges and log what changed."""
        async with self._sessions() as session:
            now = await clock.now(session)
            late = await list_late_days(
                session, timezone=self._timezone, late_after=self._late_after, now=now
            )
        self._count_gauge.set(len(late))
        self._age_gauge.set((now - late[0].due_at).total_seconds() if late else 0)
        previous, self._late = set(self._late), late
        for day in late:
            if day not in previous:
                log.error("report late", report_date=str(day.report_date), due_at=str(day.due_at))
        for day in previous.difference(late):
            log.info("report no longer late", report_date=str(day.report_date))

    async def run(self) -> None:
        """Check periodically until cancelled; a failed check is repeated at the next interval."""
        while True:
            try:
                await self.check()
            except Exception as error:
                if not is_outage(error):
                    log.warning("lateness check failed", reason=repr(error)[:200])
            await asyncio.sleep(self._interval_seconds)
