"""Handler of run messages: builds the report of the run that it claims."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.contextvars import bound_contextvars

from daybook_domain import clock
from daybook_domain.errors import Unavailable
from daybook_domain.postgres_errors import is_outage
from daybook_domain.reports.build import BuildResult, build_day
from daybook_domain.reports.business_day import business_day
from daybook_domain.reports.errors import LeaseLost, TimezoneMismatch
from daybook_domain.runs import leases, retries
from daybook_domain.runs.models import ReportRun, RunTrigger
from daybook_domain.runs.requests import PRIORITY
from daybook_domain.runs.tasks import BUILD_REPORT, BuildReport
from daybook_domain.schedules.failure_pauses import pause_after_failure
from daybook_domain.tasks import Interrupted
from daybook_platform import backoff
from daybook_platform.postgres import backends
from daybook_platform.postgres.backends import Backend
from daybook_platform.postgres.engine import create_sessions
from daybook_platform.wait import wait
from daybook_worker.concurrency import ConcurrencyLimiter
from daybook_worker.failures import BuildFailure, BuildTimeout, classify_failure
from daybook_worker.lease_heartbeat import HeartbeatEnd, LeaseHeartbeat
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.run_claims import RunClaimer

log = structlog.stdlib.get_logger(__name__)

_RECORD_TIMEOUT_SECONDS = 5.0
"""Maximum time of one transaction that records the end of a run."""
_CONNECT_TIMEOUT = timedelta(seconds=10)
_COMMIT_GRACE_SECONDS = 1.0
_CANCEL_TIMEOUT_SECONDS = 5.0

_REFUSED_DELAY = timedelta(seconds=1)
"""Time after which a refused run can be claimed again, by another worker."""

T = TypeVar("T")


class ReportBuilder:
    """Builds of reports, each under the lease of its run."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        timezone: str,
        lease: timedelta,
        worker: str,
        metrics: WorkerMetrics,
        outage_limit: timedelta = retries.OUTAGE_LIMIT,
        concurrency: int = 1,
        refusal_pause: timedelta = timedelta(seconds=10),
        stalled_after: timedelta = timedelta(seconds=10),
        transaction_timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        """Store the settings.

        After a run that it refused, the builder keeps the message's slot for `refusal_pause`, so
        that the next message of the run goes to another worker.
        """
        self._engine = engine
        # For claims, extensions of leases and the records of their ends.
        self._sessions = create_sessions(engine, timeout=transaction_timeout)
        self._timezone = timezone
        self._lease = lease
        self._outage_limit = outage_limit
        self._metrics = metrics
        self._refusal_pause = refusal_pause
        self._stopping = asyncio.Event()
        self._interrupting = asyncio.Event()
        self._backfill_limiter = ConcurrencyLimiter(concurrency=concurrency)
        self._claimer = RunClaimer(
            self._sessions, worker=worker, lease=lease, stopping=self._stopping
        )
        self._heartbeat = LeaseHeartbeat(self._sessions, lease=lease)
        self._stalled_after = stalled_after
        self._handlers: set[asyncio.Task[Any]] = set()

    async def require_claims(self) -> None:
        """Return unless a claim waits for a database that does not respond, else `Unavailable`."""
        self._claimer.require_answers(within=self._stalled_after)

    def stop(self) -> None:
        """Claim no more runs; active builds continue."""
        self._stopping.set()

    def interrupt(self) -> None:
        """Cancel the active builds and release their runs; returns immediately."""
        self._stopping.set()
        self._interrupting.set()

    async def interrupt_and_wait(self) -> None:
        """Cancel the active builds, and return when their runs are released."""
        self.interrupt()
        if self._handlers:
            await asyncio.wait(
                self._handlers, timeout=_RECORD_TIMEOUT_SECONDS + _CANCEL_TIMEOUT_SECONDS
            )

    async def build(self, task: BuildReport) -> None:
        """Claim the most urgent queued run and build its report.

        Returns when the message can be acknowledged: the report is committed, its failure is
        recorded, or another worker has the run. Raises `Interrupted` when the worker stops, and
        the original error when the build failed unexpectedly.
        """
        if current := asyncio.current_task():
            self._handlers.add(current)
            current.add_done_callback(self._handlers.discard)
        with bound_contextvars(message_run_id=str(task.run_id)):
            async with self._backfill_limiter.request_slot() as slot:
                run = await self._claimer.claim_next(task.run_id, slot=slot)
                if run is None:
                    log.info("nothing to claim")
                    return
                if run.priority < PRIORITY[RunTrigger.BACKFILL]:
                    slot.release()
                # The claimed run need not be the one that the message names.
                with bound_contextvars(run_id=str(run.id), report_date=str(run.report_date)):
                    log.info("run claimed", attempt=run.attempt)
                    await self._execute(run)

    async def _execute(self, run: ReportRun) -> None:
        started = time.monotonic()
        outcome = "failed"
        self._metrics.running.inc()
        try:
            built = await self._build_under_lease(run)
            outcome = "succeeded"
            _log_built(built, seconds=time.monotonic() - started)
        except LeaseLost as error:
            outcome = "lost"
            log.warning("run lost: reaped or cancelled", detail=error.detail)
        except TimezoneMismatch as error:
            outcome = "refused"
            log.error("run refused", code=error.code, detail=error.detail)
            await self._refuse(run, error)
            await wait(self._refusal_pause.total_seconds(), unless=self._stopping)
        except (Interrupted, asyncio.CancelledError):
            outcome = "released"
            await self._release(run)
            raise
        except Exception as error:
            failure = classify_failure(error)
            # The traceback of an unexpected error is logged by the receiver, which gets the error.
            log.warning("build failed", code=failure.code, detail=failure.detail[:200])
            await self._record_failure(run, failure)
            if failure.is_bug:
                raise
        finally:
            self._metrics.running.dec()
            self._metrics.finished.labels(outcome).inc()
            self._metrics.seconds.labels(outcome).observe(time.monotonic() - started)

    async def _build_under_lease(self, run: ReportRun) -> BuildResult:
        backend: asyncio.Future[Backend] = asyncio.get_running_loop().create_future()
        async with (
            _background_task(self._build(run, backend)) as build,
            _background_task(self._heartbeat.run(run, backend=backend)) as heartbeat,
            _background_task(self._interrupting.wait()) as interruption,
        ):
            await asyncio.wait(
                {build, heartbeat, interruption}, return_when=asyncio.FIRST_COMPLETED
            )
            end = heartbeat.result() if heartbeat.done() else None
            if not build.done() and end is HeartbeatEnd.LEASE_LOST:
                # A commit in progress blocks the heartbeat on the row, and leaves it in a final
                # state: to the heartbeat that looks like a lost lease, but it is not.
                await asyncio.wait({build}, timeout=_COMMIT_GRACE_SECONDS)
            if build.done():
                return build.result()
            if end is HeartbeatEnd.CONNECTION_LOST:
                await self._terminate(backend.result())
                raise Unavailable("the connection of the build does not respond")
            if end is HeartbeatEnd.LEASE_LOST:
                raise LeaseLost(f"the lease of run {run.id} could not be extended")
            raise Interrupted

    async def _terminate(self, backend: Backend) -> None:
        """Release the locks of a build whose connection is silent, the date's lock included."""
        try:
            async with self._sessions() as session:
                await backends.terminate(session, backend)
        except Exception as error:
            # The server ends it when it has been idle for a lease.
            log.warning("backend of the build not terminated", reason=repr(error)[:200])

    async def _build(self, run: ReportRun, backend: asyncio.Future[Backend]) -> BuildResult:
        day = business_day(run.report_date, timezone=self._timezone)
        try:
            async with asyncio.timeout(BUILD_REPORT.timeout.total_seconds()) as limit:
                async with AsyncExitStack() as stack:
                    async with asyncio.timeout(min(self._lease, _CONNECT_TIMEOUT).total_seconds()):
                        connection = await stack.enter_async_context(self._engine.begin())
                        backend.set_result(await backends.identify(connection))
                    return await build_day(
                        connection,
                        day=day,
                        run_id=run.id,
                        fence=run.fence,
                        # A session that is idle for a lease has lost the run, and must not block
                        # the next build of the date by its lock.
                        idle_timeout=self._lease,
                    )
        except TimeoutError:
            if limit.expired():
                raise BuildTimeout(f"build not finished within {BUILD_REPORT.timeout}") from None
            raise

    async def _record_failure(self, run: ReportRun, failure: BuildFailure) -> None:
        """Record the failure; during an outage, retry for as long as the lease may last.

        A run whose lease expires in time is reaped, and the reaper cannot know that the attempt
        was ended by an outage.
        """
        deadline = time.monotonic() + self._lease.total_seconds()
        for delay in backoff.delays():
            try:
                async with asyncio.timeout(_RECORD_TIMEOUT_SECONDS):
                    await self._record_failure_once(run, failure)
                return
            except Exception as error:
                if not is_outage(error):
                    raise
                if self._interrupting.is_set() or time.monotonic() + delay > deadline:
                    _log_not_updated("failure", error)
                    return
            await wait(delay, unless=self._interrupting)

    async def _record_failure_once(self, run: ReportRun, failure: BuildFailure) -> None:
        async with self._sessions.begin() as session:
            recorded = await retries.record_failure(
                session,
                run.id,
                fence=run.fence,
                error_code=failure.code,
                error_detail=failure.detail,
                retryable=failure.retryable,
                now=(now := await clock.now(session)),
                is_outage=failure.is_outage,
                outage_limit=self._outage_limit,
            )
            if recorded is not None:
                await pause_after_failure(session, recorded, now=now)
        if recorded is not None:
            log.info(
                "failure recorded",
                state=recorded.state,
                attempt=recorded.attempt,
                available_at=str(recorded.available_at),
            )

    async def _refuse(self, run: ReportRun, error: TimezoneMismatch) -> None:
        async with _tolerating_outage("refusal"), self._sessions.begin() as session:
            await leases.refuse(
                session,
                run.id,
                fence=run.fence,
                error_code=error.code,
                error_detail=error.detail,
                now=await clock.now(session),
                delay=_REFUSED_DELAY,
            )

    async def _release(self, run: ReportRun) -> None:
        async with _tolerating_outage("release"):
            async with self._sessions.begin() as session:
                await leases.release(session, run.id, fence=run.fence, now=await clock.now(session))
            log.info("run released")


@asynccontextmanager
async def _tolerating_outage(action: str) -> AsyncIterator[None]:
    """Log an outage of Postgres in the block: the run is left to the expiry of its lease."""
    try:
        async with asyncio.timeout(_RECORD_TIMEOUT_SECONDS):
            yield
    except Exception as error:
        if not is_outage(error):
            raise
        _log_not_updated(action, error)


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


def _log_not_updated(change: str, error: Exception) -> None:
    log.warning(
        "run not updated: database unavailable; its lease will expire",
        change=change,
        reason=repr(error)[:200],
    )


@asynccontextmanager
async def _background_task(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run `work` concurrently with the block, and cancel it on exit."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        # Cancelling a build cancels its statement on the server, which may not respond any more.
        await asyncio.wait({task}, timeout=_CANCEL_TIMEOUT_SECONDS)
        if task.done() and not task.cancelled():
            # Mark the exception as retrieved: the block has read it, or ended for another reason.
            task.exception()
