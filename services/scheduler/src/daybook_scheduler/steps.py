"""Steps of the scheduler that work on Postgres only, each in a transaction of its own.

Any number of schedulers execute them concurrently; row locks and constraints coordinate them.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import structlog

from daybook_domain import clock
from daybook_domain.backfills import progression
from daybook_domain.backfills import service as backfills
from daybook_domain.reports.business_day import local_date
from daybook_domain.runs import cancellation, fire_ledger, leases, reconciliation
from daybook_domain.schedules import queries, retention
from daybook_domain.schedules.failure_pauses import pause_after_failure
from daybook_domain.schedules.materialization import MaterializationResult, materialize
from daybook_scheduler.loop_config import LoopConfig
from daybook_scheduler.metrics import SchedulerMetrics
from daybook_scheduler.step_runner import IMMEDIATELY
from daybook_scheduler.transactions import TransactionFactory

log = structlog.stdlib.get_logger(__name__)

_SCHEDULES_BATCH_SIZE = 1000
_REAP_BATCH_SIZE = 100
_BACKFILLS_BATCH_SIZE = 100
_PRUNE_BATCH_SIZE = 1000
_PRUNE_INTERVAL_SECONDS = 600.0

_JOINED_FIRES_WINDOW = timedelta(hours=1)
"""Time after the cancellation of a run in which the fires that joined it are handled, too."""

_FIRST_JOINED_FIRES_WINDOW = timedelta(days=7)
"""The same at the start of a process: no scheduler may have run since the cancellation."""

_RECONCILE_DELAY = timedelta(minutes=2)
"""Time from the sealing of a day to its first rebuild.

Transactions that were open at the sealing, and add late orders to the day, end within this time.
"""

_RECONCILE_INTERVAL = timedelta(hours=1)

_DUE_TIME_MARGIN = timedelta(milliseconds=1)


class SchedulerSteps:
    """The steps that materialize, reap, reconcile, backfill and prune.

    Each returns the delay after which it has more to do; None if it does not know.
    """

    def __init__(
        self,
        *,
        database: TransactionFactory,
        config: LoopConfig,
        metrics: SchedulerMetrics,
        wake_dispatch: Callable[[], None],
    ) -> None:
        self._database = database
        self._config = config
        self._metrics = metrics
        self._wake_dispatch = wake_dispatch
        self._next_prune_at = 0.0
        self._joined_fires_window = _FIRST_JOINED_FIRES_WINDOW

    async def materialize_fires(self) -> timedelta | None:
        """Turn due fires into runs, or record why they lead to none."""
        async with self._database.transaction() as session:
            now = await clock.now(session)
            result = await materialize(session, now=now, limit=_SCHEDULES_BATCH_SIZE)
            next_due_at = await queries.get_next_due_at(session, after=now)
        self._record_fires(result)
        if result.recorded:
            self._wake_dispatch()
            return IMMEDIATELY
        # The margin avoids an execution just before the due time. One that comes too early
        # all the same is repeated.
        return None if next_due_at is None else next_due_at - now + _DUE_TIME_MARGIN

    def _record_fires(self, result: MaterializationResult) -> None:
        counts = {
            "run": result.runs,
            "joined": result.joined,
            "overlapped": result.overlapped,
            "paused": result.paused,
            "missed": result.missed,
            "failed": result.failed,
        }
        for outcome, count in counts.items():
            self._metrics.fires.labels(outcome).inc(count)
        if result.recorded:
            log.info("fires materialized", **counts)
        for name in result.broken:
            log.error("schedule cannot fire; the reason is recorded on it", schedule=name)

    async def reap_runs(self) -> timedelta | None:
        """Reap the runs whose lease has expired."""
        async with self._database.transaction() as session:
            now = await clock.now(session)
            reaped = await leases.reap(
                session,
                now=now,
                limit=_REAP_BATCH_SIZE,
                outage_limit=self._config.outage_limit,
                on_reaped=partial(pause_after_failure, session, now=now),
            )
            within, self._joined_fires_window = self._joined_fires_window, _JOINED_FIRES_WINDOW
            restarted = await cancellation.restart_joined_fires(
                session, now=now, within=within, limit=_REAP_BATCH_SIZE
            )
            await fire_ledger.cancel_joined_fires(session, now=now, within=within)
        for fire in restarted:
            log.warning(
                "fire restarted: the backfill whose run it had joined was cancelled",
                run_id=str(fire.id),
                report_date=str(fire.report_date),
            )
        for run in reaped:
            log.warning(
                "run reaped",
                run_id=str(run.id),
                report_date=str(run.report_date),
                state=run.state.value,
                attempt=run.attempt,
            )
        self._metrics.reaped.inc(len(reaped))
        if reaped or restarted:
            self._wake_dispatch()
        return IMMEDIATELY if len(reaped) == _REAP_BATCH_SIZE else None

    async def reconcile_days(self) -> timedelta | None:
        """Request rebuilds of the latest days for late orders, and of stale days of any age."""
        reconcile_days = self._config.reconcile_days
        async with self._database.transaction() as session:
            now = await clock.now(session)
            today = local_date(now, timezone=self._config.timezone)
            result = await reconciliation.reconcile(
                session,
                first=today - timedelta(days=reconcile_days) if reconcile_days else None,
                timezone=self._config.timezone,
                now=now,
                settle=_RECONCILE_DELAY,
                interval=_RECONCILE_INTERVAL,
            )
        self._metrics.reconciled.labels("requested").inc(len(result.requested))
        self._metrics.reconciled.labels("postponed").inc(len(result.postponed))
        return IMMEDIATELY if len(result.requested) == reconciliation.MAX_DAYS_PER_BATCH else None

    async def advance_backfills(self) -> timedelta | None:
        """Record the outcome of finished dates of backfills, and request the next dates."""
        async with self._database.transaction() as session:
            decided = await progression.advance(
                session,
                timezone=self._config.timezone,
                now=await clock.now(session),
                limit=_BACKFILLS_BATCH_SIZE,
            )
        self._metrics.backfilled.inc(decided)
        if not decided:
            return None
        self._wake_dispatch()
        return IMMEDIATELY

    async def prune_history(self) -> timedelta | None:
        """Delete one batch of ended runs and backfills whose retention time has passed."""
        clock_seconds = asyncio.get_running_loop().time()
        if not self._config.ledger_days or clock_seconds < self._next_prune_at:
            return None
        async with self._database.transaction() as session:
            before = await clock.now(session) - timedelta(days=self._config.ledger_days)
            pruned = await retention.prune(session, before=before, limit=_PRUNE_BATCH_SIZE)
            await backfills.prune(session, before=before, limit=_BACKFILLS_BATCH_SIZE)
        self._metrics.pruned.inc(pruned)
        if pruned == _PRUNE_BATCH_SIZE:
            return IMMEDIATELY
        self._next_prune_at = clock_seconds + _PRUNE_INTERVAL_SECONDS
        return None
