"""Main loop of a scheduler: all steps, concurrently, until it is stopped."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.pg_channels import RUNS_CHANNEL
from daybook_domain.tasks import TaskQueue
from daybook_platform.postgres.engine import create_sessions
from daybook_platform.postgres.pg_listen import listen
from daybook_platform.redis.taskiq_schedule_source import RedisScheduleSource
from daybook_scheduler.daily_schedule import DailySchedule
from daybook_scheduler.dispatch import Dispatcher
from daybook_scheduler.loop_config import LoopConfig
from daybook_scheduler.metrics import SchedulerMetrics
from daybook_scheduler.step_runner import Step, StepRunner
from daybook_scheduler.steps import SchedulerSteps
from daybook_scheduler.taskiq_sync import TaskiqSync
from daybook_scheduler.transactions import TransactionFactory

_DRAIN_TIMEOUT_SECONDS = 3.0


class SchedulerLoop:
    """Loops of all steps of a scheduler.

    Any number of schedulers run concurrently, without a leader.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        queue: TaskQueue,
        config: LoopConfig,
        metrics: SchedulerMetrics,
        taskiq: RedisScheduleSource | None = None,
    ) -> None:
        self._engine = engine
        database = TransactionFactory(create_sessions(engine, timeout=config.transaction_timeout))
        self.daily_schedule = DailySchedule(
            database=database, cron=config.daily_cron, timezone=config.timezone
        )
        self._dispatcher = Dispatcher(
            database=database,
            queue=queue,
            metrics=metrics,
            lease=config.dispatch_lease,
            queue_lease=config.queue_lease,
        )
        # Two, so that one claims the next runs while the other waits for the broker.
        self._dispatch_steps = [Step("dispatch", self._dispatcher.dispatch) for _ in range(2)]
        steps = SchedulerSteps(
            database=database, config=config, metrics=metrics, wake_dispatch=self._wake_dispatch
        )
        self._backfill_step = Step("backfill", steps.advance_backfills)
        # The names are label values of `daybook_scheduler_ticks`.
        all_steps = [
            Step("define", self.daily_schedule.define),
            *self._dispatch_steps,
            Step("materialise", steps.materialize_fires),
            Step("reap", steps.reap_runs),
            Step("reconcile", steps.reconcile_days),
            self._backfill_step,
            Step("prune", steps.prune_history),
        ]
        if taskiq is not None:
            sync = TaskiqSync(
                database=database, source=taskiq, timezone=config.timezone, metrics=metrics
            )
            all_steps.append(Step("bridge", sync.sync_if_due))
        self._runner = StepRunner(
            all_steps, tick=config.tick, metrics=metrics, outage=database.outage
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Run the steps until `stop` is set, then finish active ones within a few seconds."""
        stop_requested = asyncio.create_task(stop.wait())
        listener = asyncio.create_task(self._listen())
        steps = [asyncio.create_task(self._runner.repeat(step)) for step in self._runner.steps]
        try:
            await asyncio.wait(
                (stop_requested, listener, *steps), return_when=asyncio.FIRST_COMPLETED
            )
            self._runner.stop()
            self._dispatcher.stop()
            await asyncio.wait(steps, timeout=_DRAIN_TIMEOUT_SECONDS)
        finally:
            tasks = (stop_requested, listener, *steps)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            # The runner handles the errors of steps. Any other is a bug that ends the process.
            if isinstance(result, Exception):
                raise result

    async def _listen(self) -> None:
        def wake(_: str = "") -> None:
            self._wake_dispatch()
            self._backfill_step.wake.set()

        await listen(self._engine, RUNS_CHANNEL, on_notify=wake, on_listen=wake)

    def _wake_dispatch(self) -> None:
        for step in self._dispatch_steps:
            step.wake.set()
