"""Claims of runs on behalf of run messages."""

import asyncio
import time
from datetime import timedelta
from uuid import UUID

import structlog

from daybook_domain import clock
from daybook_domain.errors import Unavailable
from daybook_domain.postgres_errors import is_outage
from daybook_domain.runs import claims
from daybook_domain.runs.errors import RunsLocked
from daybook_domain.runs.models import ReportRun, RunTrigger
from daybook_domain.tasks import Interrupted
from daybook_platform import backoff
from daybook_platform.postgres.sessions import Sessions
from daybook_platform.wait import wait
from daybook_worker.concurrency import Slot

log = structlog.stdlib.get_logger(__name__)

_LOCKED_RETRY_SECONDS = 0.2
"""Delay before the next attempt when every claimable run is locked."""
_URGENT_POLL_SECONDS = 0.5
"""Interval at which a message that waits for a backfill slot checks for urgent runs."""


class RunClaimer:
    """Claims that wait for slots, row locks and an unavailable database, until `stopping`."""

    def __init__(
        self, sessions: Sessions, *, worker: str, lease: timedelta, stopping: asyncio.Event
    ) -> None:
        self._sessions = sessions
        self._worker = worker
        self._lease = lease
        self._stopping = stopping
        self._unanswered_since = dict[object, float]()

    def require_answers(self, *, within: timedelta) -> None:
        """Raise `Unavailable` when a claim has waited longer than `within` for the database."""
        now = time.monotonic()
        seconds = now - min(self._unanswered_since.values(), default=now)
        if seconds > within.total_seconds():
            raise Unavailable(f"a claim has waited {seconds:.0f} s for the database")

    async def claim_next(self, run_id: UUID, *, slot: Slot) -> ReportRun | None:
        """Claim the most urgent queued run; None when no run can be claimed.

        `run_id` is the run that the message names. Until `slot` is acquired, only runs more urgent
        than backfills are claimed. The message waits here and not in the queue, so that it can
        stand for the message of the nightly run, which RabbitMQ does not deliver to a worker whose
        prefetch is used up. Raises `Interrupted` when the worker stops.
        """
        while not slot.is_acquired:
            urgent = await self._claim(run_id, before=RunTrigger.BACKFILL)
            if urgent is not None:
                return urgent
            await slot.wait(timeout=_URGENT_POLL_SECONDS)
        return await self._claim(run_id)

    async def _claim(self, run_id: UUID, *, before: RunTrigger | None = None) -> ReportRun | None:
        claim, delays = object(), backoff.delays()
        try:
            while not self._stopping.is_set():
                self._unanswered_since.setdefault(claim, time.monotonic())
                try:
                    async with self._sessions.begin() as session:
                        return await claims.claim_next(
                            session,
                            run_id,
                            worker=self._worker,
                            now=await clock.now(session),
                            lease=self._lease,
                            before=before,
                        )
                except RunsLocked:
                    if before is not None:
                        return None
                    # The database has answered: it is not what the message waits for.
                    self._unanswered_since.pop(claim)
                    seconds = _LOCKED_RETRY_SECONDS
                except Exception as error:
                    if not is_outage(error):
                        raise
                    log.warning("claim failed; retrying", reason=repr(error)[:200])
                    seconds = next(delays)
                await wait(seconds, unless=self._stopping)
            raise Interrupted
        finally:
            self._unanswered_since.pop(claim, None)
