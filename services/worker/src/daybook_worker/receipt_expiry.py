"""Expiry of receipts whose messages RabbitMQ would have redelivered by now; see docs/adr/0016."""

import time
from collections.abc import Callable
from datetime import timedelta

import structlog

from daybook_domain.intake import deduplication
from daybook_domain.intake.deduplication import ReceiptKey
from daybook_domain.postgres_errors import is_outage
from daybook_platform.postgres.sessions import Sessions
from daybook_platform.rabbitmq.intake_consumer import IntakeConsumer

log = structlog.stdlib.get_logger(__name__)

RETENTION = timedelta(minutes=5)
"""Time of steady consumption for which a receipt is retained."""

INTERVAL = timedelta(seconds=30)
MAX_GAP = timedelta(seconds=90)
"""Maximum time between two observations; after a longer one, nothing is known about the time."""


class ReceiptExpiry:
    """Observations of the receipts during the life of one consumer.

    A receipt expires when it was there at all observations of `RETENTION`, and RabbitMQ and
    Postgres were reachable at each. An outage, or a consumer that connects again, starts anew.
    """

    def __init__(
        self, sessions: Sessions, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._sessions = sessions
        self._monotonic = monotonic
        self._first_seen_at: dict[ReceiptKey, float] = {}
        self._observed_at = float("-inf")
        self._next_at = float("-inf")

    async def observe_if_due(self, consumer: IntakeConsumer) -> None:
        """Observe the receipts, and delete those that have expired.

        Raises `Unavailable` if RabbitMQ does not respond.
        """
        now = self._monotonic()
        if now < self._next_at:
            return
        self._next_at = now + INTERVAL.total_seconds()
        await consumer.require_alive()
        if now - self._observed_at > MAX_GAP.total_seconds():
            self._first_seen_at.clear()
        try:
            await self._observe(now)
        except Exception as error:
            self._first_seen_at.clear()
            if not is_outage(error):
                raise
            log.warning("receipts not observed: database unavailable", reason=repr(error)[:200])

    async def _observe(self, now: float) -> None:
        async with self._sessions.begin() as session:
            receipts = await deduplication.list_receipts(session)
            first_seen = {each: self._first_seen_at.get(each, now) for each in receipts}
            expired = [
                each for each, at in first_seen.items() if now - at >= RETENTION.total_seconds()
            ]
            if expired:
                await deduplication.delete_receipts(session, expired)
        if expired:
            log.info("receipts expired", count=len(expired))
        self._first_seen_at = {
            each: at for each, at in first_seen.items() if each not in set(expired)
        }
        self._observed_at = now
