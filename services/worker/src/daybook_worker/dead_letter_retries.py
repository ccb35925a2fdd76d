"""When are dead letters tried again that wait, and when is what the intake remembers forgotten?"""

import asyncio
import time
from collections import Counter
from datetime import timedelta

import structlog

from daybook_domain.intake import dead_letters, deduplication, queries, service
from daybook_domain.intake.dead_letters import RetryPolicy
from daybook_domain.postgres_errors import is_outage
from daybook_platform import backoff
from daybook_platform.postgres.engine import Sessions
from daybook_platform.wait import wait
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.settings import WorkerSettings

log = structlog.stdlib.get_logger(__name__)

_TICK_SECONDS = 0.5
_AT_ONCE = 100
_HOUSEKEEPING_SECONDS = 30.0
_FORGET_AT_ONCE = 10_000

_KEEP_RECEIPTS = timedelta(days=7)
"""RabbitMQ delivers again what a worker had when it comes back, however long it was away."""


class DeadLetterRetrier:
    """Tries letters again as they come due, until told to stop."""

    def __init__(
        self, settings: WorkerSettings, *, sessions: Sessions, metrics: WorkerMetrics
    ) -> None:
        """Connects to nothing yet; see `run`."""
        self._sessions = sessions
        self._patience = RetryPolicy(total=settings.intake_patience)
        self._remember = settings.intake_remember
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._tidy_at = 0.0

    def stop(self) -> None:
        """Begin with no more letters; those under way are finished."""
        self._stopping.set()

    async def run(self) -> None:
        """Go round after round until `stop`, waiting for a database that is away."""
        pauses = backoff.delays()
        while not self._stopping.is_set():
            seconds = _TICK_SECONDS
            try:
                while await self._try_some() and not self._stopping.is_set():
                    pass
                await self._tidy()
                pauses = backoff.delays()
            except Exception as error:
                seconds = next(pauses)
                if is_outage(error):
                    log.warning("cannot try dead letters again", reason=repr(error)[:200])
                else:
                    log.error("the round of dead letters met a bug", exc_info=error)
            await wait(seconds, unless=self._stopping)

    async def _try_some(self) -> bool:
        async with self._sessions.begin() as session:
            ids = await dead_letters.claim_due(session, limit=_AT_ONCE)
        if not ids:
            return False
        async with self._sessions.begin() as session:
            settled = await service.retry_dead_letters(session, ids, retry_policy=self._patience)
        outcomes = Counter(each.outcome for each in settled)
        log.info("dead letters tried again", **{str(key): n for key, n in outcomes.items()})
        return True

    async def _tidy(self) -> None:
        async with self._sessions() as session:
            self._metrics.waiting.set(await queries.count_waiting(session))
        if time.monotonic() < self._tidy_at:
            return
        async with self._sessions.begin() as session:
            more = await deduplication.delete_expired(
                session,
                messages_after=self._remember,
                receipts_after=_KEEP_RECEIPTS,
                limit=_FORGET_AT_ONCE,
            )
        if not more:
            self._tidy_at = time.monotonic() + _HOUSEKEEPING_SECONDS
