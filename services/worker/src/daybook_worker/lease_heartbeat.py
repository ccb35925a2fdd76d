"""Heartbeat that extends the lease of a run while its report is being built."""

import asyncio
import time
from datetime import timedelta

import structlog

from daybook_domain import clock
from daybook_domain.runs import leases
from daybook_domain.runs.models import ReportRun
from daybook_platform.postgres.engine import Sessions

log = structlog.stdlib.get_logger(__name__)

_EXTENSIONS_PER_LEASE = 3


class LeaseHeartbeat:
    """Extension of leases, on other connections than those of the builds."""

    def __init__(self, sessions: Sessions, *, lease: timedelta) -> None:
        self._sessions = sessions
        self._lease = lease

    async def run(self, run: ReportRun) -> None:
        """Extend the lease of a claimed run repeatedly; return when the lease is lost."""
        lease_seconds = self._lease.total_seconds()
        interval = lease_seconds / _EXTENSIONS_PER_LEASE
        started = extended = time.monotonic()
        while time.monotonic() - extended < lease_seconds:
            await asyncio.sleep(interval)
            attempted = time.monotonic()
            progress = f"running for {attempted - started:.0f} s"
            try:
                async with asyncio.timeout(interval):
                    if not await self._extend(run, progress=progress):
                        return
                extended = attempted
            except Exception as error:
                # The lease may last for two more attempts. Once it has expired, the fence protects
                # the report, and to continue the build would be wasted work.
                log.warning("lease not extended", reason=repr(error)[:200])

    async def _extend(self, run: ReportRun, *, progress: str) -> bool:
        async with self._sessions.begin() as session:
            until = await clock.now(session) + self._lease
            return await leases.extend(
                session, run.id, fence=run.fence, until=until, progress=progress
            )
