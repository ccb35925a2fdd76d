"""Batch processing of the messages of producers: commit first, then acknowledge."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.errors import Unavailable
from daybook_domain.intake import deduplication, service
from daybook_domain.intake.dead_letters import RetryPolicy
from daybook_domain.intake.errors import DeliveriesLost
from daybook_domain.intake.service import Batch, MessageResult
from daybook_domain.postgres_errors import is_outage
from daybook_domain.tasks import Interrupted
from daybook_platform import backoff
from daybook_platform.postgres.engine import ping
from daybook_platform.postgres.sessions import Sessions
from daybook_platform.rabbitmq.intake_consumer import IntakeConsumer
from daybook_platform.wait import wait
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.receipt_expiry import ReceiptExpiry
from daybook_worker.settings import WorkerSettings
from daybook_worker.unknown_fields import UnknownFields

log = structlog.stdlib.get_logger(__name__)

_TIMEOUT_SECONDS = 10.0
_RECEIVE_TIMEOUT_SECONDS = 1.0
_PREFETCHED_BATCHES = 2
_NOT_CONSUMING = "not consuming from RabbitMQ"


class IntakeProcessor:
    """Processing of intake messages, one batch at a time.

    While the transaction of a batch runs, the next batch arrives. Neither RabbitMQ nor Postgres
    has to be available at the start, or all the time.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        settings: WorkerSettings,
        *,
        sessions: Sessions,
        metrics: WorkerMetrics,
        monotonic: Callable[[], float] = time.monotonic,
        stalled_after: timedelta = timedelta(seconds=15),
        idle_timeout: timedelta = timedelta(seconds=30),
    ) -> None:
        """Store the components; nothing is connected yet, see `run`."""
        self._engine = engine
        self._sessions = sessions
        self._url = settings.broker_url.get_secret_value()
        self._max_batch_size = settings.intake_batch
        self._max_batch_delay = settings.intake_linger.total_seconds()
        self._retry_policy = RetryPolicy(total=settings.intake_patience)
        self._metrics = metrics
        self._unknown_fields = UnknownFields(metrics)
        self._monotonic = monotonic
        self._stopping = asyncio.Event()
        self._consumer: IntakeConsumer | None = None
        self._unavailable_reason = _NOT_CONSUMING
        self._stalled_after = stalled_after
        self._idle_timeout = idle_timeout
        self._batch_since: float | None = None

    def stop(self) -> None:
        """Start no more batches; the active one is finished."""
        self._stopping.set()
        if self._consumer is not None:
            self._consumer.stop()

    async def ping(self) -> None:
        """Return when messages are being consumed and committed; raises `Unavailable`."""
        if self._consumer is None:
            raise Unavailable(self._unavailable_reason)
        if self._batch_since is None:
            return
        seconds = time.monotonic() - self._batch_since
        if seconds > self._stalled_after.total_seconds():
            raise Unavailable(f"a batch has waited {seconds:.0f} s for its commit")

    async def run(self) -> None:
        """Process messages until `stop`; reconnect to servers that become unavailable."""
        delays = backoff.delays(longest=5)
        while not self._stopping.is_set():
            try:
                # Messages that arrive while Postgres is unavailable could not be processed.
                await ping(self._engine)
                await self._consume_until_closed()
                delays = backoff.delays(longest=5)
                continue
            except Exception as error:
                self._report(error)
            await wait(next(delays), unless=self._stopping)

    def _report(self, error: Exception) -> None:
        if isinstance(error, Unavailable):
            self._unavailable_reason = error.detail
            log.warning(
                "cannot consume: RabbitMQ unavailable; retrying",
                reason=error.detail,
                cause=repr(error.__cause__),
            )
        elif is_outage(error):
            log.warning("cannot consume: database unavailable; retrying", reason=repr(error)[:200])
        else:
            # The batch is requeued, and its messages are redelivered one by one.
            log.error("cannot consume: unexpected error; retrying", exc_info=error)

    async def _consume_until_closed(self) -> None:
        consumer = await IntakeConsumer.start(
            self._url,
            application="daybook-worker",
            prefetch=_PREFETCHED_BATCHES * self._max_batch_size,
            timeout=_TIMEOUT_SECONDS,
        )
        self._consumer = consumer
        log.info("consuming intake queues", consumer=str(consumer.id))
        try:
            await self._consume(consumer)
        except Interrupted:
            log.info("batch requeued: database unavailable")
        finally:
            self._consumer, self._unavailable_reason = None, _NOT_CONSUMING
            await consumer.close()

    async def _consume(self, consumer: IntakeConsumer) -> None:
        number = 0
        # Observed here and not in a task of its own: while a batch waits, redelivered messages may
        # wait behind it.
        expiry = ReceiptExpiry(self._sessions, monotonic=self._monotonic)
        while not self._stopping.is_set():
            await expiry.observe_if_due(consumer)
            messages = await consumer.receive_batch(
                limit=self._max_batch_size,
                max_delay=self._max_batch_delay,
                timeout=_RECEIVE_TIMEOUT_SECONDS,
            )
            if not messages:
                continue
            number += 1
            batch = Batch(
                consumer=consumer.id,
                number=number,
                deliveries=[message.delivery for message in messages],
            )
            self._batch_since = time.monotonic()
            try:
                await self._commit(consumer, batch)
            finally:
                self._batch_since = None
            await consumer.acknowledge(messages)
            await self._delete_receipt(batch)

    async def _commit(self, consumer: IntakeConsumer, batch: Batch) -> None:
        """Commit a batch, and wait for a database that is unavailable.

        Raises `Interrupted` when the worker stops meanwhile.
        """
        started = time.monotonic()
        for seconds in backoff.delays():
            try:
                async with self._sessions.begin() as session:
                    results = await service.consume_batch(
                        session,
                        batch,
                        retry_policy=self._retry_policy,
                        still_valid=lambda: consumer.is_alive,
                        idle_timeout=self._idle_timeout,
                    )
                self._record(batch, results, seconds=time.monotonic() - started)
                return
            except DeliveriesLost:
                raise
            except Exception as error:
                if not is_outage(error):
                    raise
                log.warning(
                    "batch not committed: database unavailable; retrying",
                    reason=repr(error)[:200],
                )
            if await wait(seconds, unless=self._stopping):
                raise Interrupted
            # Meanwhile the deliveries may have been requeued and delivered to another worker.
            await consumer.require_alive()

    async def _delete_receipt(self, batch: Batch) -> None:
        """Delete the receipt of a batch whose acknowledgement RabbitMQ has confirmed."""
        try:
            async with self._sessions.begin() as session:
                await deduplication.delete_receipt(session, batch.consumer, number=batch.number)
        except Exception as error:
            if not is_outage(error):
                raise
            # It expires, see receipt_expiry.py.
            log.warning("receipt not deleted: database unavailable", reason=repr(error)[:200])

    def _record(
        self, batch: Batch, results: Sequence[MessageResult] | None, *, seconds: float
    ) -> None:
        """Record the metrics of a committed batch, and log it.

        `results` is None when an earlier attempt has committed it.
        """
        self._metrics.batch_seconds.observe(seconds)
        if results is None:
            log.info("batch was already committed", messages=len(batch.deliveries))
            return
        self._unknown_fields.record(batch.deliveries)
        outcomes = Counter(
            (delivery.queue, each.outcome)
            for delivery, each in zip(batch.deliveries, results, strict=True)
        )
        for (queue, outcome), count in outcomes.items():
            self._metrics.messages.labels(queue, outcome).inc(count)
        for code, count in Counter(each.reason_code for each in results).items():
            if code is not None:
                self._metrics.dead_letters.labels(code).inc(count)
                log.warning("messages dead-lettered", reason_code=code, count=count)
        log.debug("batch committed", messages=len(results), seconds=round(seconds, 4))
