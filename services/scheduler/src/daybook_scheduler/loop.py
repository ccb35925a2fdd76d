"""What is due, and what was never picked up? One loop for each step.

Each step is a loop of its own: one that waits (for RabbitMQ, for a lock) or fails holds up none of
the others. Any number of schedulers do all this side by side; what keeps them apart is in the rows.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain import clock
from daybook_domain.backfills import progression as backfills
from daybook_domain.backfills import service as backfill_service
from daybook_domain.errors import Unavailable
from daybook_domain.pg_channels import RUNS_CHANNEL
from daybook_domain.postgres_errors import is_lock_conflict, is_outage, is_schema_missing
from daybook_domain.reports.business_day import local_date
from daybook_domain.runs import fire_ledger, leases, reconciliation
from daybook_domain.schedules import queries, retention
from daybook_domain.schedules import service as schedules
from daybook_domain.schedules.definitions import ScheduleDefinition
from daybook_domain.schedules.failure_pauses import pause_after_failure
from daybook_domain.schedules.materialization import materialize
from daybook_domain.tasks import TaskQueue
from daybook_platform.postgres.engine import create_sessions
from daybook_platform.postgres.pg_listen import listen
from daybook_platform.redis.schedule_source import RedisScheduleSource
from daybook_platform.wait import wait
from daybook_scheduler.dispatch import Dispatcher
from daybook_scheduler.metrics import SchedulerMetrics
from daybook_scheduler.taskiq_sync import TaskiqSync
from daybook_scheduler.transactions import TransactionFactory

log = structlog.stdlib.get_logger(__name__)

SCHEDULES_AT_ONCE = 1000
REAPED_AT_ONCE = 100
BACKFILLS_AT_ONCE = 100

CANCELLED_LATELY = timedelta(hours=1)
"""How long after a cancellation fires that joined the run are looked for."""

PRUNED_AT_ONCE = 1000
PRUNE_EVERY_SECONDS = 600.0

SETTLE = timedelta(minutes=2)
"""How long after sealing a day is first rebuilt: a transaction under way has ended by then."""

RECONCILE_EVERY = timedelta(hours=1)

A_MOMENT = timedelta(milliseconds=1)
LONGEST_PAUSE_SECONDS = 5.0
DRAIN_SECONDS = 3.0


@dataclass(frozen=True)
class LoopConfig:
    """What the settings say about which reports are due, and how long runs may wait."""

    daily_cron: str
    timezone: str
    reconcile_days: int
    ledger_days: int = 0
    dispatch_lease: timedelta = timedelta(seconds=30)
    queue_lease: timedelta = timedelta(minutes=5)
    tick: timedelta = timedelta(seconds=1)


@dataclass
class _Step:
    """One thing to do again and again; `run` tells whether to go on at once."""

    name: str
    run: Callable[[], Awaitable[bool]]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    due_in: timedelta | None = None
    """How soon it will have something to do, as far as it knows; it is done again no later."""


class SchedulerLoop:
    """Materialises, dispatches, reaps and reconciles until it is told to stop."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        queue: TaskQueue,
        plan: LoopConfig,
        metrics: SchedulerMetrics,
        taskiq: RedisScheduleSource | None = None,
    ) -> None:
        self._engine = engine
        self._database = TransactionFactory(create_sessions(engine))
        self._plan = plan
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._defined = False
        self._unmigrated = set[str]()
        self._prune_at = 0.0
        self._dispatcher = Dispatcher(
            database=self._database,
            queue=queue,
            metrics=metrics,
            lease=plan.dispatch_lease,
            queue_lease=plan.queue_lease,
        )
        self._materialise = _Step("materialise", self.materialise)
        self._backfill = _Step("backfill", self.backfill)
        # Two, so that one takes the next runs while the messages of the other are on their way.
        self._senders = [_Step("dispatch", self.dispatch) for _ in range(2)]
        self._steps = [
            _Step("define", self.define),
            *self._senders,
            self._materialise,
            _Step("reap", self.reap),
            _Step("reconcile", self.reconcile),
            self._backfill,
            _Step("prune", self.prune),
        ]
        if taskiq is not None:
            bridge = TaskiqSync(
                database=self._database, source=taskiq, timezone=plan.timezone, metrics=metrics
            )
            self._steps.append(_Step("bridge", bridge.look))

    async def require_defined(self) -> None:
        """Return when the daily schedule is in the database; raises `Unavailable` until then.

        Before, a midnight would pass unnoticed: a schedule fires from when it is written down.
        """
        if not self._defined:
            raise Unavailable("the daily schedule is not in the database yet")

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish what is under way, within a few seconds."""
        ending = asyncio.create_task(stop.wait())
        ear = asyncio.create_task(self._listen())
        steps = [asyncio.create_task(self._repeat(step)) for step in self._steps]
        try:
            await asyncio.wait((ending, ear, *steps), return_when=asyncio.FIRST_COMPLETED)
            self._stop()
            await asyncio.wait(steps, timeout=DRAIN_SECONDS)
        finally:
            for task in (ending, ear, *steps):
                task.cancel()
            ended = await asyncio.gather(ending, ear, *steps, return_exceptions=True)
        for outcome in ended:
            # A step catches what can go wrong; what it did not catch is a bug to die of.
            if isinstance(outcome, Exception):
                raise outcome

    async def _listen(self) -> None:
        def wake(_: str = "") -> None:
            self._wake_senders()
            self._backfill.wake.set()

        await listen(self._engine, RUNS_CHANNEL, on_notify=wake, on_listen=wake)

    def _stop(self) -> None:
        self._stopping.set()
        self._dispatcher.stop()
        for step in self._steps:
            step.wake.set()

    def _wake_senders(self) -> None:
        for step in self._senders:
            step.wake.set()

    async def _repeat(self, step: _Step) -> None:
        failures = 0
        while not self._stopping.is_set():
            step.wake.clear()
            again = False
            try:
                again = await step.run()
            except Exception as error:
                failures += 1
                self._metrics.ticks.labels(step.name, "failed").inc()
                self._report(step, error, failures=failures)
            else:
                failures = 0
                self._unmigrated.discard(step.name)
                self._metrics.ticks.labels(step.name, "ok").inc()
            seconds = self._plan.tick.total_seconds()
            if failures:
                # A wake-up is no reason to hurry back to what has just failed.
                longer = min(seconds * 2 ** min(failures - 1, 10), LONGEST_PAUSE_SECONDS)
                await wait(longer, unless=self._stopping)
            elif not again:
                if step.due_in is not None:
                    seconds = min(seconds, step.due_in.total_seconds())
                await wait(seconds, unless=step.wake)

    def _report(self, step: _Step, error: Exception, *, failures: int) -> None:
        if is_lock_conflict(error):
            log.warning("a step was held up", step=step.name, reason=str(error).splitlines()[0])
        elif is_outage(error):
            self._database.outage.noticed(error)
        elif is_schema_missing(error):
            if not self._unmigrated:  # Once for all of them.
                log.error(
                    "the database lacks a table or column; run `daybook migrate`",
                    step=step.name,
                    reason=str(error).splitlines()[0],
                )
            self._unmigrated.add(step.name)
        else:
            log.error("a step failed", step=step.name, failures=failures, exc_info=error)

    async def define(self) -> bool:
        """Write the daily schedule that the settings ask for, once."""
        if self._defined:
            return False
        async with self._database.transaction() as session:
            daily = ScheduleDefinition(
                name=schedules.DAILY_NAME, cron=self._plan.daily_cron, timezone=self._plan.timezone
            )
            schedule = await schedules.define_from_settings(
                session, definition=daily, now=await clock.now(session)
            )
        self._defined = True
        log.info(
            "daily schedule",
            cron=schedule.cron,
            timezone=schedule.timezone,
            next_fire_at=str(schedule.next_fire_at),
        )
        return False

    async def materialise(self) -> bool:
        """Turn due fires into runs, or into the reason why not."""
        async with self._database.transaction() as session:
            now = await clock.now(session)
            fires = await materialize(session, now=now, limit=SCHEDULES_AT_ONCE)
            due_at = await queries.get_next_due_at(session, after=now)
        # A fire need not wait for the tick. Whoever wakes a moment too early looks once more.
        self._materialise.due_in = None if due_at is None else due_at - now + A_MOMENT
        for outcome, count in (
            ("run", fires.runs),
            ("joined", fires.joined),
            ("overlapped", fires.overlapped),
            ("paused", fires.paused),
            ("missed", fires.missed),
            ("failed", fires.failed),
        ):
            self._metrics.fires.labels(outcome).inc(count)
        if fires.recorded:
            log.info(
                "fires",
                runs=fires.runs,
                joined=fires.joined,
                overlapped=fires.overlapped,
                paused=fires.paused,
                missed=fires.missed,
            )
            self._wake_senders()
        for name in fires.broken:
            log.error("a schedule cannot fire; its row says why", schedule=name)
        return fires.recorded > 0

    async def dispatch(self) -> bool:
        """Send pending runs to the workers."""
        return await self._dispatcher.dispatch()

    async def reap(self) -> bool:
        """Take back runs whose lease has run out."""
        async with self._database.transaction() as session:
            now = await clock.now(session)
            reaped = await leases.reap(
                session,
                now=now,
                limit=REAPED_AT_ONCE,
                on_reaped=partial(pause_after_failure, session, now=now),
            )
            await fire_ledger.cancel_joined_fires(session, now=now, within=CANCELLED_LATELY)
        for run in reaped:
            log.warning(
                "run taken back",
                run_id=str(run.id),
                report_date=str(run.report_date),
                state=run.state.value,
                attempt=run.attempt,
            )
        self._metrics.reaped.inc(len(reaped))
        if reaped:
            self._wake_senders()
        return len(reaped) == REAPED_AT_ONCE

    async def reconcile(self) -> bool:
        """Ask for the rebuild of the latest days, so that late orders get into them."""
        if not self._plan.reconcile_days:
            return False
        async with self._database.transaction() as session:
            now = await clock.now(session)
            today = local_date(now, timezone=self._plan.timezone)
            outcome = await reconciliation.reconcile(
                session,
                first=today - timedelta(days=self._plan.reconcile_days),
                timezone=self._plan.timezone,
                now=now,
                settle=SETTLE,
                interval=RECONCILE_EVERY,
            )
        self._metrics.reconciled.labels("requested").inc(len(outcome.requested))
        self._metrics.reconciled.labels("postponed").inc(len(outcome.postponed))
        return False

    async def backfill(self) -> bool:
        """Hand out the next dates of backfills, and settle what has become of those before."""
        async with self._database.transaction() as session:
            decided = await backfills.advance(
                session,
                timezone=self._plan.timezone,
                now=await clock.now(session),
                limit=BACKFILLS_AT_ONCE,
            )
        self._metrics.backfilled.inc(decided)
        if decided:
            self._wake_senders()
        return decided > 0

    async def prune(self) -> bool:
        """Forget what the ledger need not remember any longer, a little at a time."""
        clock_seconds = asyncio.get_running_loop().time()
        if not self._plan.ledger_days or clock_seconds < self._prune_at:
            return False
        async with self._database.transaction() as session:
            before = await clock.now(session) - timedelta(days=self._plan.ledger_days)
            pruned = await retention.prune(session, before=before, limit=PRUNED_AT_ONCE)
            await backfill_service.prune(session, before=before, limit=BACKFILLS_AT_ONCE)
        self._metrics.pruned.inc(pruned)
        if pruned == PRUNED_AT_ONCE:
            return True
        self._prune_at = clock_seconds + PRUNE_EVERY_SECONDS
        return False
