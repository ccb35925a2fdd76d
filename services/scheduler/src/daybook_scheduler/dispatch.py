"""Dispatch of pending runs to RabbitMQ, with at-least-once delivery."""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from daybook_domain import clock
from daybook_domain.errors import Unavailable
from daybook_domain.runs import dispatch_queue
from daybook_domain.runs.dispatch_queue import DispatchItem
from daybook_domain.runs.models import RunTrigger
from daybook_domain.runs.tasks import BUILD_REPORT, BuildReport
from daybook_domain.schedules import overlap
from daybook_domain.tasks import TaskQueue
from daybook_platform.outage_log import OutageLog
from daybook_scheduler.metrics import SchedulerMetrics
from daybook_scheduler.step_runner import IMMEDIATELY
from daybook_scheduler.transactions import TransactionFactory

log = structlog.stdlib.get_logger(__name__)

BATCH_SIZE = 500
"""Maximum number of runs that are claimed in one transaction."""

MAX_CONCURRENT_SENDS = 100
"""Maximum number of messages that wait for the broker's confirmation concurrently."""

_BACKOFF_SECONDS = (1.0, 2.0, 4.0, 5.0)
"""Maximum delay after the first, second, ... consecutive failure of the broker."""

_UNSENT_DELAY = timedelta(seconds=1)


class Dispatcher:
    """Claims of pending runs, and the sending of their messages.

    A run is committed as queued, with a short lease, before its message is published. Once the
    broker has confirmed the message, the lease is extended. If anything fails in between, the lease
    expires and the run is dispatched again; a worker that gets a second message finds no run to
    claim.
    """

    def __init__(
        self,
        *,
        database: TransactionFactory,
        queue: TaskQueue,
        metrics: SchedulerMetrics,
        lease: timedelta,
        queue_lease: timedelta,
    ) -> None:
        self._database = database
        self._queue = queue
        self._metrics = metrics
        self._lease = lease
        self._queue_lease = queue_lease
        self._broker_outage = OutageLog("RabbitMQ")
        self._failures = 0
        self._backoff_until = 0.0
        self._sent = list[DispatchItem]()
        self._unsent = list[DispatchItem]()
        self._stopping = False

    def stop(self) -> None:
        """Send no further message; those that were sent are still recorded."""
        self._stopping = True

    async def dispatch(self) -> timedelta | None:
        """Send one batch of the runs that are due; return `IMMEDIATELY` if more may be due."""
        if self._sent or self._unsent:
            # Results of earlier batches whose rows were locked, or which Postgres did not record.
            await self._record_results()
        if self._stopping or asyncio.get_running_loop().time() < self._backoff_until:
            return None
        claimed = await self._claim()
        if not claimed:
            return None
        sent = await self._publish(claimed)
        # By id: to compare whole rows, each with each, would cost more than to send them.
        sent_ids = {run.id for run in sent}
        unsent = [run for run in claimed if run.id not in sent_ids]
        self._report(sent, unsent)
        self._sent += sent
        self._unsent += unsent
        await self._record_results()
        return IMMEDIATELY if len(claimed) == BATCH_SIZE and not unsent else None

    async def _claim(self) -> Sequence[DispatchItem]:
        async with self._database.transaction() as session:
            now = await clock.now(session)
            claimed = await dispatch_queue.claim_due(
                session,
                now=now,
                lease=self._lease,
                limit=BATCH_SIZE,
                has_to_wait=overlap.has_earlier_work(),
            )
        for run in claimed:
            self._metrics.lag.observe((now - _get_due_time(run)).total_seconds())
        return claimed

    async def _publish(self, runs: Sequence[DispatchItem]) -> list[DispatchItem]:
        """Return the runs whose messages the broker has confirmed.

        Times out well before the lease expires.
        """
        waiting, sent = deque(runs), list[DispatchItem]()
        errors: list[BaseException] = []

        async def send_waiting() -> None:
            while waiting and not errors and not self._stopping:
                run = waiting.popleft()
                try:
                    await self._queue.send(BUILD_REPORT, BuildReport(run_id=run.id))
                except Unavailable as error:
                    errors.append(error)
                except Exception as error:
                    log.exception("run not dispatched: unexpected error", run_id=str(run.id))
                    errors.append(error)
                else:
                    sent.append(run)

        senders = min(MAX_CONCURRENT_SENDS, len(runs))
        try:
            async with asyncio.timeout(self._lease.total_seconds() / 2):
                await asyncio.gather(*(send_waiting() for _ in range(senders)))
        except TimeoutError as error:
            errors.append(error)
        self._update_backoff(errors)
        return sent

    def _update_backoff(self, errors: Sequence[BaseException]) -> None:
        if not errors:
            self._broker_outage.end()
            self._failures = 0
            return
        self._broker_outage.report(errors[0])
        self._failures += 1
        longest = _BACKOFF_SECONDS[min(self._failures, len(_BACKOFF_SECONDS)) - 1]
        # Jitter: schedulers that noticed the outage together should not retry together.
        delay = longest * random.uniform(0.75, 1)
        self._backoff_until = asyncio.get_running_loop().time() + delay

    def _report(self, sent: Sequence[DispatchItem], unsent: Sequence[DispatchItem]) -> None:
        self._metrics.dispatched.labels("sent").inc(len(sent))
        self._metrics.dispatched.labels("unsent").inc(len(unsent))
        for run in sent:
            log.info(
                "run dispatched",
                run_id=str(run.id),
                report_date=str(run.report_date),
                trigger=run.trigger.value,
            )

    async def _record_results(self) -> None:
        """Record which runs were sent; results of locked rows are retained for the next call.

        A row that another scheduler or a worker has changed meanwhile is ignored.
        """
        sent, self._sent = self._sent, []
        unsent, self._unsent = self._unsent, []
        try:
            async with self._database.transaction() as session:
                now = await clock.now(session)
                # The delay is short because another scheduler may be able to reach the broker.
                retry_at, queued_until = now + _UNSENT_DELAY, now + self._queue_lease
                locked_sent = await dispatch_queue.mark_sent(session, sent, until=queued_until)
                locked_unsent = await dispatch_queue.mark_unsent(session, unsent, until=retry_at)
        except BaseException:
            self._sent += sent
            self._unsent += unsent
            raise
        self._sent += locked_sent
        self._unsent += locked_unsent


def _get_due_time(run: DispatchItem) -> datetime:
    if run.trigger == RunTrigger.SCHEDULE and run.attempt == 0 and run.scheduled_for is not None:
        return run.scheduled_for
    return run.available_at
