"""What does the worker do when it is asked to build a report?"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.contextvars import bound_contextvars

from daybook_domain import clock
from daybook_domain.errors import DaybookError, Unavailable
from daybook_domain.postgres_errors import is_outage
from daybook_domain.reports.build import BuildResult, build_day
from daybook_domain.reports.business_day import business_day
from daybook_domain.reports.errors import LeaseLost
from daybook_domain.runs import claims, leases, retries
from daybook_domain.runs.errors import RunsLocked
from daybook_domain.runs.models import ReportRun, RunTrigger
from daybook_domain.runs.requests import PRIORITY
from daybook_domain.runs.tasks import BUILD_REPORT, BuildReport
from daybook_domain.schedules.failure_pauses import pause_after_failure
from daybook_domain.tasks import Interrupted
from daybook_platform import backoff
from daybook_platform.postgres.engine import create_sessions
from daybook_platform.wait import wait
from daybook_worker.concurrency import ConcurrencyLimiter, Slot
from daybook_worker.metrics import WorkerMetrics

log = structlog.stdlib.get_logger(__name__)

_LONGEST_CODE = 100
_LONGEST_DETAIL = 2000
_BOOKKEEPING_SECONDS = 5.0
"""How long is tried to write down what became of a run, before it is left to its lease."""
_COMMIT_GRACE_SECONDS = 1.0
_CANCEL_SECONDS = 5.0
_HELD_SECONDS = 0.2
"""How soon is looked again at runs that somebody holds."""
_LOOK_SECONDS = 0.5
"""How soon a message that may not become a backfill's build is used for what is more urgent."""

T = TypeVar("T")


class BuildTimeout(Unavailable):
    """A build took longer than its contract allows; another time the server may be less busy."""

    code = "timeout"


@dataclass(frozen=True)
class BuildFailure:
    """Why a build failed, and what that means for the run and for the message."""

    code: str
    detail: str
    retryable: bool
    is_bug: bool
    """Nobody has foreseen it: the message is kept as evidence."""


class ReportBuilder:
    """Builds reports, each under the lease of its run, until told to stop."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        timezone: str,
        lease: timedelta,
        worker: str,
        metrics: WorkerMetrics,
        at_once: int = 1,
    ) -> None:
        self._engine = engine
        self._sessions = create_sessions(engine)
        self._timezone = timezone
        self._lease = lease
        self._worker = worker
        self._metrics = metrics
        self._for_backfills = ConcurrencyLimiter(at_once=at_once)
        self._stopping = asyncio.Event()
        self._abandoning = asyncio.Event()
        self._handling: set[asyncio.Task[Any]] = set()

    def stop(self) -> None:
        """Begin with no more runs; those under way go on."""
        self._stopping.set()

    def abandon(self) -> None:
        """Break off the runs under way and give them back."""
        self._stopping.set()
        self._abandoning.set()

    async def leave(self) -> None:
        """Give back what is under way, and return when that is done."""
        self.abandon()
        if self._handling:
            await asyncio.wait(self._handling, timeout=_BOOKKEEPING_SECONDS + _CANCEL_SECONDS)

    async def build(self, task: BuildReport) -> None:
        """Build the report that a run asks for, if the run is still there to be claimed.

        Returns when nothing is left to do with the message: the report is committed, its failure
        is on record, or somebody else has the run. Raises `Interrupted` when the worker is
        leaving, and what the build raised when that is a bug.
        """
        if current := asyncio.current_task():
            self._handling.add(current)
            current.add_done_callback(self._handling.discard)
        with bound_contextvars(message_run_id=str(task.run_id)):
            async with self._for_backfills.turn() as turn:
                run = await self._take(task.run_id, turn)
                if run is None:
                    log.info("nothing to claim")
                    return
                if run.priority < PRIORITY[RunTrigger.BACKFILL]:
                    turn.give_up()
                # The claimed run need not be the one that the message names.
                with bound_contextvars(run_id=str(run.id), report_date=str(run.report_date)):
                    log.info("run claimed", attempt=run.attempt)
                    await self._work_on(run)

    async def _take(self, run_id: UUID, turn: Slot) -> ReportRun | None:
        """Claim the run, or a more urgent one; such a one only, until the turn has come.

        Meanwhile the message waits here, and not in the queue, so that it can stand for the
        nightly run's: that one is not delivered to a worker that has its hands full.
        """
        while not turn.has_come:
            urgent = await self._claim(run_id, before=RunTrigger.BACKFILL)
            if urgent is not None:
                return urgent
            await turn.comes(within=_LOOK_SECONDS)
        return await self._claim(run_id)

    async def _work_on(self, run: ReportRun) -> None:
        began = time.monotonic()
        outcome = "failed"
        self._metrics.running.inc()
        try:
            built = await self._build_under_lease(run)
            outcome = "succeeded"
            _log_built(built, seconds=time.monotonic() - began)
        except LeaseLost as error:
            outcome = "lost"
            log.warning("run lost to another worker, or cancelled", detail=error.detail)
        except (Interrupted, asyncio.CancelledError):
            outcome = "released"
            await self._release(run)
            raise
        except Exception as error:
            failure = classify_failure(error)
            # The traceback of a bug is logged by the receiver, which it is raised to.
            log.warning("build failed", code=failure.code, detail=failure.detail[:200])
            await self._record(run, failure)
            if failure.is_bug:
                raise
        finally:
            self._metrics.running.dec()
            self._metrics.finished.labels(outcome).inc()
            self._metrics.seconds.labels(outcome).observe(time.monotonic() - began)

    async def _claim(self, run_id: UUID, *, before: RunTrigger | None = None) -> ReportRun | None:
        """Claim the run, waiting for a database that is away: its message waits with us."""
        pauses = backoff.delays()
        while not self._stopping.is_set():
            try:
                async with self._sessions.begin() as session:
                    return await claims.claim_next(
                        session,
                        run_id,
                        worker=self._worker,
                        now=await clock.now(session),
                        lease=self._lease,
                        before=before,
                    )
            except RunsLocked:
                if before is not None:
                    return None
                seconds = _HELD_SECONDS
            except Exception as error:
                if not is_outage(error):
                    raise
                log.warning("cannot claim; trying again", reason=repr(error)[:200])
                seconds = next(pauses)
            await wait(seconds, unless=self._stopping)
        raise Interrupted

    async def _build_under_lease(self, run: ReportRun) -> BuildResult:
        async with (
            _running(self._build(run)) as building,
            _running(self._hold(run)) as holding,
            _running(self._abandoning.wait()) as abandoning,
        ):
            await asyncio.wait({building, holding, abandoning}, return_when=asyncio.FIRST_COMPLETED)
            if not building.done() and holding.done():
                # A build that is just committing keeps the heartbeat waiting for the row, which
                # then is not running any more: that is no loss.
                await asyncio.wait({building}, timeout=_COMMIT_GRACE_SECONDS)
            if building.done():
                return building.result()
            if holding.done():
                raise LeaseLost(f"the lease of run {run.id} could not be kept")
            raise Interrupted

    async def _build(self, run: ReportRun) -> BuildResult:
        day = business_day(run.report_date, timezone=self._timezone)
        try:
            async with asyncio.timeout(BUILD_REPORT.timeout.total_seconds()) as limit:
                async with self._engine.begin() as connection:
                    return await build_day(
                        connection,
                        day=day,
                        run_id=run.id,
                        fence=run.fence,
                        # Who is silent for as long has lost the lease; the next one needs the lock.
                        idle_timeout=self._lease,
                    )
        except TimeoutError:
            if limit.expired():
                raise BuildTimeout(f"not finished within {BUILD_REPORT.timeout}") from None
            raise

    async def _hold(self, run: ReportRun) -> None:
        """Extend the lease, on another connection than the build's; returns when it is lost."""
        interval = self._lease.total_seconds() / 3
        began = kept = time.monotonic()
        while time.monotonic() - kept < self._lease.total_seconds():
            await asyncio.sleep(interval)
            asked = time.monotonic()
            try:
                async with asyncio.timeout(interval):
                    if not await self._extend(run, progress=f"under way for {asked - began:.0f} s"):
                        return
                kept = asked
            except Exception as error:
                # The lease may hold for two more tries. When it does not, the fence protects the
                # report; to go on would be work for nothing.
                log.warning("lease not extended", reason=repr(error)[:200])

    async def _extend(self, run: ReportRun, *, progress: str) -> bool:
        async with self._sessions.begin() as session:
            until = await clock.now(session) + self._lease
            return await leases.extend(
                session, run.id, fence=run.fence, until=until, progress=progress
            )

    async def _record(self, run: ReportRun, failure: BuildFailure) -> None:
        async with self._bookkeeping("failure"), self._sessions.begin() as session:
            recorded = await retries.record_failure(
                session,
                run.id,
                fence=run.fence,
                error_code=failure.code,
                error_detail=failure.detail,
                retryable=failure.retryable,
                now=(now := await clock.now(session)),
            )
            if recorded is not None:
                await pause_after_failure(session, recorded, now=now)
                log.info("failure recorded", state=recorded.state, next=str(recorded.available_at))

    async def _release(self, run: ReportRun) -> None:
        async with self._bookkeeping("release"), self._sessions.begin() as session:
            await leases.release(session, run.id, fence=run.fence, now=await clock.now(session))
            log.info("run released")

    @asynccontextmanager
    async def _bookkeeping(self, what: str) -> AsyncIterator[None]:
        """Try to write something down; if the database is away, the run's lease says it later."""
        try:
            async with asyncio.timeout(_BOOKKEEPING_SECONDS):
                yield
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning(f"{what} not recorded; the lease runs out", reason=repr(error)[:200])


def classify_failure(error: Exception) -> BuildFailure:
    """Return what the failure of a build means."""
    if is_outage(error):
        return BuildFailure(Unavailable.code, _text(error), retryable=True, is_bug=False)
    if isinstance(error, DaybookError):
        retryable = isinstance(error, Unavailable)
        return BuildFailure(error.code, _text(error), retryable=retryable, is_bug=False)
    return BuildFailure(
        type(error).__name__[:_LONGEST_CODE], _text(error), retryable=True, is_bug=True
    )


def _text(error: Exception) -> str:
    # Without the statement, which SQLAlchemy adds.
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return (str(cause) or repr(cause))[:_LONGEST_DETAIL]


def _log_built(built: BuildResult, *, seconds: float) -> None:
    log.info(
        "report built",
        revision=built.revision,
        orders=built.orders_count,
        products=built.products_count,
        sealed=built.sealed,
        added=built.added,
        changed=built.changed,
        removed=built.removed,
        seconds=round(seconds, 3),
    )


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run `work` beside the block, and no longer than that."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        # Cancelling a build cancels its statement on the server, which may not answer any more.
        await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
        if task.done() and not task.cancelled():
            # Read already, or overtaken by what ended the block: either way no news.
            task.exception()
