"""Heartbeat that extends the lease of a run while its report is being built."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

import structlog

from daybook_domain import clock
from daybook_domain.runs import leases
from daybook_domain.runs.models import ReportRun
from daybook_platform.postgres import backends
from daybook_platform.postgres.backends import Activity, Backend
from daybook_platform.postgres.sessions import Sessions

log = structlog.stdlib.get_logger(__name__)

_EXTENSIONS_PER_LEASE = 3

T = TypeVar("T")


class HeartbeatEnd(StrEnum):
    """Why a heartbeat has ended."""

    LEASE_LOST = "lease_lost"
    """The run was reaped or cancelled, or the lease could not be extended in time."""
    CONNECTION_LOST = "connection_lost"
    """The connection of the build is silent, or its backend does not exist any more."""


@dataclass
class _BuildActivity:
    """The backend of a build, once it is known, and what it did at the extension before."""

    backend: asyncio.Future[Backend]
    previous: Activity | None = None


class LeaseHeartbeat:
    """Extension of leases, on other connections than those of the builds.

    These other connections may work while that of the build has become silent. So each extension
    also requires that the backend of the build is alive: that it executes a statement, or has
    received another one since the extension before.
    """

    def __init__(self, sessions: Sessions, *, lease: timedelta) -> None:
        self._sessions = sessions
        self._lease = lease

    async def run(self, run: ReportRun, *, backend: asyncio.Future[Backend]) -> HeartbeatEnd:
        """Extend the lease of a claimed run repeatedly, until it ends.

        `backend` is that of the build, once it is known.
        """
        lease_seconds = self._lease.total_seconds()
        interval = lease_seconds / _EXTENSIONS_PER_LEASE
        started = extended = time.monotonic()
        activity = _BuildActivity(backend)
        while time.monotonic() - extended < lease_seconds:
            # At a fixed pace: an attempt without a reply must not delay the next ones, which the
            # lease still lasts for.
            await asyncio.sleep(interval - (time.monotonic() - started) % interval)
            attempted = time.monotonic()
            progress = f"running for {attempted - started:.0f} s"
            try:
                end = await _within(0.9 * interval, self._beat(run, activity, progress=progress))
                if end is not None:
                    return end
                extended = attempted
            except Exception as error:
                # Once the lease has expired, the fence protects the report, and to continue the
                # build would be wasted work.
                log.warning("lease not extended", reason=repr(error)[:200])
        return HeartbeatEnd.LEASE_LOST

    async def _beat(
        self, run: ReportRun, activity: _BuildActivity, *, progress: str
    ) -> HeartbeatEnd | None:
        async with self._sessions.begin() as session:
            if activity.backend.done():
                latest = await backends.find_activity(session, activity.backend.result())
                if latest is None or (latest.is_idle and latest == activity.previous):
                    return HeartbeatEnd.CONNECTION_LOST
                activity.previous = latest
            until = await clock.now(session) + self._lease
            is_extended = await leases.extend(
                session, run.id, fence=run.fence, until=until, progress=progress
            )
        return None if is_extended else HeartbeatEnd.LEASE_LOST


async def _within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`. Raises `TimeoutError`, without waiting for its cancellation.

    The cancellation of a statement waits for a server that may not respond either.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError(f"no response within {seconds:.1f} s")
        return task.result()
    finally:
        task.cancel()
