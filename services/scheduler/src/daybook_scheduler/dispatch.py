"""How do pending runs get to the workers, once each or at worst again, and never not at all?"""

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
from daybook_scheduler.metrics import SchedulerMetrics
from daybook_scheduler.transactions import OutageLog, TransactionFactory

log = structlog.stdlib.get_logger(__name__)

BATCH = 500
"""How many runs are taken at once."""

AT_ONCE = 100
"""How many messages are on their way to the broker at the same time."""

PAUSE_SECONDS = (1.0, 2.0, 4.0, 5.0)
"""How long the broker is left in peace after it could not be had once, twice and so on."""


class Dispatcher:
    """Takes pending runs and sends them.

    The row is committed as queued, with a short lease, before the message is published; published
    means that the broker has confirmed it, and then the lease becomes a long one. Whatever breaks
    off in between, the lease runs out and the run is sent again. A second message finds nothing to
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
        self._broker = OutageLog("RabbitMQ")
        self._failures = 0
        self._paused_until = 0.0
        self._sent = list[DispatchItem]()
        self._unsent = list[DispatchItem]()
        self._stopping = False

    def stop(self) -> None:
        """Begin with no further message."""
        self._stopping = True

    async def dispatch(self) -> bool:
        """Send one batch of what is due; tell whether there may be more to send at once."""
        if self._sent or self._unsent:
            # They were held by somebody, or Postgres went away.
            await self._mark()
        if self._stopping or asyncio.get_running_loop().time() < self._paused_until:
            return False
        taken = await self._take()
        if not taken:
            return False
        sent = await self._publish(taken)
        # By id: to compare whole rows, each with each, would cost more than to send them.
        ids = {run.id for run in sent}
        unsent = [run for run in taken if run.id not in ids]
        self._tell(sent, unsent)
        self._sent += sent
        self._unsent += unsent
        await self._mark()
        return len(taken) == BATCH and not unsent

    async def _take(self) -> Sequence[DispatchItem]:
        async with self._database.transaction() as session:
            now = await clock.now(session)
            taken = await dispatch_queue.claim_due(
                session,
                now=now,
                lease=self._lease,
                limit=BATCH,
                has_to_wait=overlap.has_earlier_work(),
            )
        for run in taken:
            self._metrics.lag.observe((now - _due_at(run)).total_seconds())
        return taken

    async def _publish(self, runs: Sequence[DispatchItem]) -> list[DispatchItem]:
        """Return those that the broker has taken; gives up well before the lease runs out."""
        waiting, sent = deque(runs), list[DispatchItem]()
        errors: list[BaseException] = []

        async def send_in_turn() -> None:
            while waiting and not errors and not self._stopping:
                run = waiting.popleft()
                try:
                    await self._queue.send(BUILD_REPORT, BuildReport(run_id=run.id))
                except Unavailable as error:
                    errors.append(error)
                except Exception as error:
                    log.exception("a run could not be sent", run_id=str(run.id))
                    errors.append(error)
                else:
                    sent.append(run)

        try:
            async with asyncio.timeout(self._lease.total_seconds() / 2):
                await asyncio.gather(*(send_in_turn() for _ in range(min(AT_ONCE, len(runs)))))
        except TimeoutError as error:
            errors.append(error)
        self._adapt(errors)
        return sent

    def _adapt(self, errors: Sequence[BaseException]) -> None:
        if not errors:
            self._broker.over()
            self._failures = 0
            return
        self._broker.noticed(errors[0])
        self._failures += 1
        longest = PAUSE_SECONDS[min(self._failures, len(PAUSE_SECONDS)) - 1]
        # Schedulers that noticed the outage together should not come back together.
        pause = longest * random.uniform(0.75, 1)
        self._paused_until = asyncio.get_running_loop().time() + pause

    def _tell(self, sent: Sequence[DispatchItem], unsent: Sequence[DispatchItem]) -> None:
        self._metrics.dispatched.labels("sent").inc(len(sent))
        self._metrics.dispatched.labels("unsent").inc(len(unsent))
        for run in sent:
            log.info(
                "run dispatched",
                run_id=str(run.id),
                report_date=str(run.report_date),
                trigger=run.trigger.value,
            )

    async def _mark(self) -> None:
        """Write down what has become of what was taken; what cannot be is kept for the next time.

        What another scheduler or worker has changed meanwhile is no longer ours, and forgotten.
        """
        sent, self._sent = self._sent, []
        unsent, self._unsent = self._unsent, []
        try:
            async with self._database.transaction() as session:
                now = await clock.now(session)
                # Nothing keeps another scheduler, which may reach the broker, from trying sooner.
                soon, late = now + timedelta(seconds=1), now + self._queue_lease
                held_sent = await dispatch_queue.mark_sent(session, sent, until=late)
                held_unsent = await dispatch_queue.mark_unsent(session, unsent, until=soon)
        except BaseException:
            self._sent += sent
            self._unsent += unsent
            raise
        self._sent += held_sent
        self._unsent += held_unsent


def _due_at(run: DispatchItem) -> datetime:
    if run.trigger == RunTrigger.SCHEDULE and run.attempt == 0 and run.scheduled_for is not None:
        return run.scheduled_for
    return run.available_at
