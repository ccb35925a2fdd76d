"""Repeated execution of the scheduler's steps, with wake-ups, backoff and error reports."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from daybook_domain.postgres_errors import is_lock_conflict, is_outage, is_schema_missing
from daybook_domain.reports.errors import TimezoneMismatch
from daybook_platform.outage_log import OutageLog
from daybook_platform.wait import wait
from daybook_scheduler.metrics import SchedulerMetrics

log = structlog.stdlib.get_logger(__name__)

IMMEDIATELY = timedelta(0)
"""The delay that a step returns to run again without waiting."""

_MAX_BACKOFF_SECONDS = 5.0


@dataclass
class Step:
    """One thing that the scheduler does repeatedly.

    `run` returns the delay after which it has more to do: None if it does not know, which is the
    next tick. The step runs sooner when `wake` is set.
    """

    name: str
    run: Callable[[], Awaitable[timedelta | None]]
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class StepRunner:
    """Loops of steps: a step that waits or fails does not delay the others."""

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        tick: timedelta,
        metrics: SchedulerMetrics,
        outage: OutageLog,
    ) -> None:
        self.steps = steps
        self._tick = tick
        self._metrics = metrics
        self._outage = outage
        self._stopping = asyncio.Event()
        self._steps_without_schema = set[str]()

    def stop(self) -> None:
        """Start no further execution of a step; active ones continue."""
        self._stopping.set()
        for step in self.steps:
            step.wake.set()

    async def repeat(self, step: Step) -> None:
        """Run the step until `stop`: each tick, sooner when it asks for it, later after errors."""
        failures = 0
        while not self._stopping.is_set():
            step.wake.clear()
            delay: timedelta | None = None
            try:
                delay = await step.run()
            except Exception as error:
                failures += 1
                self._metrics.ticks.labels(step.name, "failed").inc()
                self._report(step, error, failures=failures)
            else:
                failures = 0
                self._steps_without_schema.discard(step.name)
                self._metrics.ticks.labels(step.name, "ok").inc()
            if failures:
                # A wake-up does not shorten the backoff of a step that has just failed.
                await wait(self._get_backoff_seconds(failures), unless=self._stopping)
            elif delay != IMMEDIATELY:
                seconds = min(self._tick, delay or self._tick).total_seconds()
                await wait(seconds, unless=step.wake)

    def _get_backoff_seconds(self, failures: int) -> float:
        seconds: float = self._tick.total_seconds() * 2 ** min(failures - 1, 10)
        return min(seconds, _MAX_BACKOFF_SECONDS)

    def _report(self, step: Step, error: Exception, *, failures: int) -> None:
        if is_lock_conflict(error):
            log.warning(
                "scheduler step: lock timeout", step=step.name, reason=str(error).splitlines()[0]
            )
        elif is_outage(error):
            self._outage.report(error)
        elif is_schema_missing(error):
            if not self._steps_without_schema:  # One line, however many steps are affected.
                log.error(
                    "a table or column is missing in the database; run `daybook migrate`",
                    step=step.name,
                    reason=str(error).splitlines()[0],
                )
            self._steps_without_schema.add(step.name)
        elif isinstance(error, TimezoneMismatch):
            log.error(
                "scheduler step refused", step=step.name, code=error.code, detail=error.detail
            )
        else:
            log.error("scheduler step failed", step=step.name, failures=failures, exc_info=error)
