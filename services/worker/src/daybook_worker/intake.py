"""What does the worker do with messages from producers? Batches: commit first, then acknowledge."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

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
from daybook_platform.postgres.engine import Sessions, ping
from daybook_platform.rabbitmq.intake_consumer import IntakeConsumer
from daybook_platform.wait import wait
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.settings import WorkerSettings

log = structlog.stdlib.get_logger(__name__)

_TIMEOUT_SECONDS = 10.0
_IDLE_SECONDS = 1.0
_BATCHES_IN_ADVANCE = 2


class IntakeProcessor:
    """Takes messages in, until told to stop.

    One batch at a time: while its transaction runs, the next one arrives. Neither RabbitMQ nor
    Postgres needs to be there at the start, or all the time.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        settings: WorkerSettings,
        *,
        sessions: Sessions,
        metrics: WorkerMetrics,
    ) -> None:
        """Connects to nothing yet; see `run`."""
        self._engine = engine
        self._sessions = sessions
        self._url = settings.broker_url.get_secret_value()
        self._most = settings.intake_batch
        self._linger = settings.intake_linger.total_seconds()
        self._patience = RetryPolicy(total=settings.intake_patience)
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._consumption: IntakeConsumer | None = None
        self._trouble = "not consuming from RabbitMQ"

    def stop(self) -> None:
        """Begin with no more batches; the one under way is finished."""
        self._stopping.set()
        if self._consumption is not None:
            self._consumption.end()

    async def ping(self) -> None:
        """Return when messages are being consumed; raises `Unavailable`."""
        if self._consumption is None:
            raise Unavailable(self._trouble)

    async def run(self) -> None:
        """Take messages in until `stop`, whoever goes away meanwhile."""
        pauses = backoff.delays(longest=5)
        while not self._stopping.is_set():
            try:
                # A message that is delivered while Postgres is away can only be held.
                await ping(self._engine)
                await self._consume_until_it_ends()
                pauses = backoff.delays(longest=5)
                continue
            except Exception as error:
                self._note(error)
            await wait(next(pauses), unless=self._stopping)

    def _note(self, error: Exception) -> None:
        if isinstance(error, Unavailable):
            self._trouble = error.detail
            log.warning(
                "cannot consume; trying again", reason=error.detail, cause=repr(error.__cause__)
            )
        elif is_outage(error):
            log.warning("cannot consume; the database is away", reason=repr(error)[:200])
        else:
            # What was delivered is given back, and comes one by one when this goes on.
            log.error("the intake met a bug; trying again", exc_info=error)

    async def _consume_until_it_ends(self) -> None:
        consumption = await IntakeConsumer.begin(
            self._url,
            application="daybook-worker",
            prefetch=_BATCHES_IN_ADVANCE * self._most,
            timeout=_TIMEOUT_SECONDS,
        )
        self._consumption = consumption
        log.info("taking messages in", consumer=str(consumption.consumer))
        try:
            await self._consume(consumption)
        except Interrupted:
            log.info("gave back what the database could not take")
        finally:
            self._consumption, self._trouble = None, "not consuming from RabbitMQ"
            await consumption.close()

    async def _consume(self, consumption: IntakeConsumer) -> None:
        number = 0
        while not self._stopping.is_set():
            arrivals = await consumption.gather(
                most=self._most, linger=self._linger, patience=_IDLE_SECONDS
            )
            if not arrivals:
                continue
            number += 1
            batch = Batch(
                consumer=consumption.consumer,
                number=number,
                deliveries=[arrival.delivery for arrival in arrivals],
            )
            await self._settle(consumption, batch)
            await consumption.acknowledge(arrivals)
            await self._forget(batch)

    async def _settle(self, consumption: IntakeConsumer, batch: Batch) -> None:
        """Commit a batch, waiting for a database that is away; raises `Interrupted` on leaving."""
        began = time.monotonic()
        for seconds in backoff.delays():
            try:
                async with self._sessions.begin() as session:
                    settled = await service.consume_batch(
                        session,
                        batch,
                        retry_policy=self._patience,
                        still_valid=lambda: consumption.lives,
                    )
                self._count(batch, settled, seconds=time.monotonic() - began)
                return
            except DeliveriesLost:
                raise
            except Exception as error:
                if not is_outage(error):
                    raise
                log.warning("cannot commit; trying again", reason=repr(error)[:200])
            if await wait(seconds, unless=self._stopping):
                raise Interrupted
            # In the meantime the deliveries may have gone to another worker.
            await consumption.require()

    async def _forget(self, batch: Batch) -> None:
        """Take back the receipt of a batch that RabbitMQ knows to be acknowledged."""
        try:
            async with self._sessions.begin() as session:
                await deduplication.delete_receipt(session, batch.consumer, number=batch.number)
        except Exception as error:
            if not is_outage(error):
                raise
            # It is left behind until it is expired.
            log.warning("a receipt could not be taken back", reason=repr(error)[:200])

    def _count(
        self, batch: Batch, settled: Sequence[MessageResult] | None, *, seconds: float
    ) -> None:
        self._metrics.batch_seconds.observe(seconds)
        if settled is None:
            log.info("the batch was committed already", messages=len(batch.deliveries))
            return
        outcomes = Counter(
            (delivery.queue, each.outcome)
            for delivery, each in zip(batch.deliveries, settled, strict=True)
        )
        for (queue, outcome), count in outcomes.items():
            self._metrics.messages.labels(queue, outcome).inc(count)
        for code, count in Counter(each.reason_code for each in settled).items():
            if code is not None:
                self._metrics.dead_letters.labels(code).inc(count)
                log.warning("dead letters", reason_code=code, count=count)
        log.debug("batch committed", messages=len(settled), seconds=round(seconds, 4))
