"""Retries of waiting dead letters, and deletion of expired message ids."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import structlog

from daybook_domain.intake import dead_letters, deduplication, queries, service
from daybook_domain.intake.dead_letters import RetryPolicy
from daybook_domain.intake.service import MessageResult
from daybook_domain.postgres_errors import is_outage
from daybook_domain.row_errors import report_row_error
from daybook_platform import backoff
from daybook_platform.postgres.sessions import Sessions
from daybook_platform.wait import wait
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.settings import WorkerSettings

log = structlog.stdlib.get_logger(__name__)

_POLL_SECONDS = 0.5
_RETRY_BATCH_SIZE = 100
_CLEANUP_INTERVAL_SECONDS = 30.0
_CLEANUP_BATCH_SIZE = 10_000


class DeadLetterRetrier:
    """Repeated retries of the dead letters that are due."""

    def __init__(
        self, settings: WorkerSettings, *, sessions: Sessions, metrics: WorkerMetrics
    ) -> None:
        """Store the components; nothing is connected yet, see `run`."""
        self._sessions = sessions
        self._retry_policy = RetryPolicy(total=settings.intake_patience)
        self._message_retention = settings.intake_remember
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._next_cleanup_at = 0.0

    def stop(self) -> None:
        """Start no more retries; the active batch is finished."""
        self._stopping.set()

    async def run(self) -> None:
        """Retry dead letters until `stop`; wait for a database that is unavailable."""
        delays = backoff.delays()
        while not self._stopping.is_set():
            seconds = _POLL_SECONDS
            try:
                while await self._retry_batch() and not self._stopping.is_set():
                    pass
                await self._update_gauge()
                await self._clean_up_if_due()
                delays = backoff.delays()
            except Exception as error:
                seconds = next(delays)
                if is_outage(error):
                    log.warning(
                        "dead letters not retried: database unavailable", reason=repr(error)[:200]
                    )
                else:
                    log.error("dead letters not retried: unexpected error", exc_info=error)
            await wait(seconds, unless=self._stopping)

    async def _retry_batch(self) -> bool:
        """Retry one batch of the dead letters that are due; False when none is due."""
        async with self._sessions.begin() as session:
            ids = await dead_letters.claim_due(session, limit=_RETRY_BATCH_SIZE)
        if not ids:
            return False
        outcomes = Counter(each.outcome for each in await self._retry_separately(ids))
        log.info("dead letters retried", **{str(key): n for key, n in outcomes.items()})
        return True

    async def _retry_separately(self, ids: Sequence[int]) -> list[MessageResult]:
        """Retry dead letters together, or each in its own transaction if one fails them all."""
        try:
            return await self._retry(ids)
        except Exception as error:
            if is_outage(error):
                raise
        results = list[MessageResult]()
        for dead_letter_id in ids:
            try:
                results += await self._retry([dead_letter_id])
            except Exception as error:
                if is_outage(error):
                    raise
                report_row_error(f"dead letter {dead_letter_id}", error)
        return results

    async def _retry(self, ids: Sequence[int]) -> list[MessageResult]:
        async with self._sessions.begin() as session:
            return await service.retry_dead_letters(session, ids, retry_policy=self._retry_policy)

    async def _update_gauge(self) -> None:
        async with self._sessions() as session:
            self._metrics.waiting.set(await queries.count_waiting(session))

    async def _clean_up_if_due(self) -> None:
        """Delete one batch of expired message ids."""
        if time.monotonic() < self._next_cleanup_at:
            return
        async with self._sessions.begin() as session:
            has_more = await deduplication.delete_expired_message_ids(
                session,
                older_than=self._message_retention,
                limit=_CLEANUP_BATCH_SIZE,
            )
        if not has_more:
            self._next_cleanup_at = time.monotonic() + _CLEANUP_INTERVAL_SECONDS
