"""What can be decided about runs of reports? Writes, inside the caller's transaction.

pending ──outbox────▶ queued ──claim──▶ running ──▶ succeeded   (by build.py, with the rows)
   ▲                     │                 │  └───▶ failed      attempts used up
   ├──── reap: waited or ran past its lease, or an attempt failed
   └──── retry ◀── failed, cancelled, or by policy never begun      cancel ──▶ cancelled
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Result,
    and_,
    case,
    false,
    func,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from daybook_domain.reports import queries
from daybook_domain.reports.calendar import BusinessDay, business_day
from daybook_domain.reports.errors import FutureDay, RunEnded, RunHeld, RunNotEnded
from daybook_domain.reports.ledger import end_joined, joined_because
from daybook_domain.reports.models import NoWork, ReportDay, ReportRun, RunState, RunTrigger
from daybook_domain.reports.statements import RUNS_CHANNEL
from daybook_domain.schedules.models import Schedule

PRIORITY = {
    RunTrigger.SCHEDULE: 0,
    RunTrigger.MANUAL: 0,
    RunTrigger.RECONCILE: 10,
    RunTrigger.BACKFILL: 20,
}
"""What goes first when much is waiting: lowest first."""

BACKOFF_BASE = timedelta(seconds=2)
BACKOFF_CAP = timedelta(minutes=5)

REAP_AGAIN = timedelta(seconds=5)
"""How soon the reaper comes again for a run that it could not take back."""


@dataclass(frozen=True)
class Requested:
    """The run that will do the work, and whether it was waiting already."""

    run: ReportRun
    joined: bool


async def request(
    session: AsyncSession,
    *,
    day: BusinessDay,
    trigger: RunTrigger,
    now: datetime,
    reason: str | None = None,
    requested_by: str | None = None,
    schedule_id: int | None = None,
    backfill_id: UUID | None = None,
) -> Requested:
    """Ask for the report of `day`; joins the run that waits for that date, if one does.

    A joined run is locked until the caller commits, so it cannot be claimed, and read the orders,
    before what the caller wrote in this transaction is visible. Raises `FutureDay`.
    """
    if now < day.starts_at:
        raise FutureDay(
            f"{day.date} has not begun yet; a report can be built from {day.starts_at:%FT%TZ} on.",
            field="date",
        )
    run = ReportRun(
        report_date=day.date,
        trigger=trigger,
        reason=reason,
        priority=PRIORITY[trigger],
        available_at=now,
        requested_by=requested_by,
        schedule_id=schedule_id,
        backfill_id=backfill_id,
    )
    requested = await add_or_join(session, run)
    await wake_schedulers(session)
    return requested


async def claim(
    session: AsyncSession,
    run_id: UUID,
    *,
    worker: str,
    now: datetime,
    lease: timedelta,
    before: RunTrigger | None = None,
) -> ReportRun | None:
    """Take a queued run to work on it; None when there is nothing to claim (any more).

    A more urgent one that is queued is taken instead, so the order of messages in the queue does
    not count; the message of that one then finds it taken, and stands for one that still waits.
    With `before`, only what is more urgent than a run of that trigger is taken. The new `fence` is
    what the worker must show to finish.

    Never waits. Raises `RunHeld` when all that could be claimed is locked: it is being claimed, or
    only looked at, by a scheduler that came too late to send it, and then there may be no other
    message for it. Ask again, in a transaction of its own.
    """
    named = col(ReportRun.id) == run_id
    own = col(ReportRun.priority)
    # Without sorts the most urgent is the first of its index, also when the statistics say that
    # next to nothing is queued, and a burst of fires has just been sent.
    asked = select(own, func.set_config("enable_sort", "off", True)).where(named)  # noqa: FBT003
    found = (await session.execute(asked)).one_or_none()
    if found is None:
        return None
    priority = found[0]
    urgent = true() if before is None else own < PRIORITY[before]
    for chosen in (
        _most_urgent(and_(own < priority, urgent)),
        select(ReportRun.id).where(named, urgent, _is_queued()),
        _most_urgent(urgent),
    ):
        claimed = await _claim(session, chosen, worker=worker, now=now, lease=lease)
        if claimed is not None:
            return claimed
    if await session.scalar(select(_queued(urgent).exists())):
        raise RunHeld("all that is queued is in other hands")
    return None


def _queued(condition: ColumnElement[bool]) -> SelectOfScalar[UUID]:
    return select(ReportRun.id).where(ReportRun.state == RunState.QUEUED, condition)


def _most_urgent(condition: ColumnElement[bool]) -> SelectOfScalar[UUID]:
    in_order = _queued(condition).order_by(col(ReportRun.priority), col(ReportRun.queued_at))
    return in_order.limit(1)


async def _claim(
    session: AsyncSession,
    chosen: SelectOfScalar[UUID],
    *,
    worker: str,
    now: datetime,
    lease: timedelta,
) -> ReportRun | None:
    free = chosen.with_for_update(skip_locked=True).scalar_subquery()
    statement = (
        update(ReportRun)
        .where(col(ReportRun.id) == free, _is_queued())
        .values(
            state=RunState.RUNNING,
            fence=col(ReportRun.fence) + 1,
            attempt=col(ReportRun.attempt) + 1,
            lease_until=now + lease,
            started_at=now,
            worker=worker,
            progress="waiting for the date's lock",
        )
        .returning(ReportRun)
    )
    return (await session.scalars(statement)).one_or_none()


def _is_queued() -> ColumnElement[bool]:
    # A condition that no partial index answers to: as long as the statistics do not know of a burst
    # of runs, Postgres takes these indexes for empty, and reads a whole one instead of the key.
    return case((col(ReportRun.state) == RunState.QUEUED, true()), else_=false())


async def extend(
    session: AsyncSession, run_id: UUID, *, fence: int, until: datetime, progress: str | None = None
) -> bool:
    """Keep a running run for longer; False when it is not the caller's any more."""
    values: dict[str, object] = {"lease_until": until}
    if progress is not None:
        values["progress"] = progress
    statement = update(ReportRun).where(*_held(run_id, fence)).values(**values)
    return _count(await session.execute(statement)) > 0


async def release(session: AsyncSession, run_id: UUID, *, fence: int, now: datetime) -> None:
    """Give a running run back untouched, for another worker to take at once.

    The attempt does not count: the worker is leaving, the run has not failed.
    """
    run = await _lock_held(session, run_id, fence=fence)
    if run is not None:
        run.attempt -= 1
        await _back_to_pending(session, run, now=now, available_at=now)
        await wake_schedulers(session)


async def record_failure(
    session: AsyncSession,
    run_id: UUID,
    *,
    fence: int,
    error_code: str,
    error_detail: str,
    retryable: bool,
    now: datetime,
) -> ReportRun | None:
    """Record a failed attempt: pending again after a pause, or failed when attempts are used up.

    None when the run is not the caller's any more.
    """
    run = await _lock_held(session, run_id, fence=fence)
    if run is None:
        return None
    await _attempt_failed(
        session, run, error_code=error_code, error_detail=error_detail, retryable=retryable, now=now
    )
    return run


OPEN_ENDED = {RunState.FAILED, RunState.CANCELLED, RunState.MISSED, RunState.SKIPPED}
"""The states that a run may be brought back from."""


async def cancel(
    session: AsyncSession, run_id: UUID, *, now: datetime, reason: str | None = None
) -> ReportRun:
    """End a run that has not ended, and with it the fires that joined it.

    A worker that is building it finds its fence old and commits nothing. Raises `RunEnded`.
    """
    run = await _lock(session, run_id)
    if run.state not in queries.OPEN:
        raise RunEnded(f"Run {run.id} has ended already: it is {run.state}.")
    run.state = RunState.CANCELLED
    run.reason = reason or "cancelled by hand"
    run.lease_until = None
    run.finished_at = now
    run.progress = None
    run.fence += 1
    await session.flush()
    await end_joined(session, now=now, within=timedelta(seconds=1))
    return run


async def retry(session: AsyncSession, run_id: UUID, *, now: datetime) -> ReportRun:
    """Let a run that ended without a report wait again, with all its attempts.

    Where another run waits for its date, it joins that one. Raises `RunNotEnded` for a run that is
    going, has succeeded, or has joined another.
    """
    run = await _lock(session, run_id)
    if run.cause is NoWork.JOINED:
        raise RunNotEnded(f"Run {run.id} has joined run {run.joined_run_id}; retry that one.")
    if run.state not in OPEN_ENDED:
        raise RunNotEnded(
            f"Run {run.id} is {run.state}; only one that failed, was cancelled, skipped or missed"
            " can be retried. POST /report/runs builds a day again."
        )
    run.cause = run.reason = run.joined_run_id = None
    run.finished_at = run.error_code = run.error_detail = None
    run.attempt = 0
    await _back_to_pending(session, run, now=now, available_at=now)
    await wake_schedulers(session)
    return run


async def _lock(session: AsyncSession, run_id: UUID) -> ReportRun:
    statement = select(ReportRun).where(ReportRun.id == run_id).with_for_update()
    found = await session.exec(statement.execution_options(populate_existing=True))
    return found.one_or_none() or await queries.get_run(session, run_id)


async def reap(session: AsyncSession, *, now: datetime, limit: int) -> Sequence[ReportRun]:
    """Take back up to `limit` runs whose lease has run out, and return them.

    A queued one is sent again; a running one has used up an attempt. Rows that are locked, such
    as that of a build about to commit, are passed over; one that cannot be taken back now gets a
    little longer, so that it does not stand before the others for ever.
    """
    lapsed = (
        select(ReportRun)
        .where(
            col(ReportRun.state).in_((RunState.QUEUED, RunState.RUNNING)),
            col(ReportRun.lease_until) < now,
        )
        .order_by(col(ReportRun.lease_until))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    reaped = []
    for run in (await session.exec(lapsed)).all():
        try:
            async with session.begin_nested():
                await _take_back(session, run, now=now)
            reaped.append(run)
        except DBAPIError:
            await session.refresh(run)
            run.lease_until = now + REAP_AGAIN
            await session.flush()
    return reaped


@dataclass(frozen=True)
class Reconciliation:
    """What was asked for so that late orders get into their reports, and what could not be."""

    requested: Sequence[date]
    postponed: Sequence[date]


async def reconcile(
    session: AsyncSession,
    *,
    first: date,
    timezone: str,
    now: datetime,
    settle: timedelta,
    interval: timedelta,
) -> Reconciliation:
    """Ask for the rebuild of the sealed days since `first` for which it is time again.

    A day is due `settle` after it was sealed and then every `interval`. Late orders, whose
    transaction committed after the build looked, get into their report this way. A day whose
    waiting run is held by somebody is postponed, which means: due again at once.
    """
    due = (
        select(ReportDay)
        .where(
            ReportDay.report_date >= first,
            col(ReportDay.sealed_at).is_not(None),
            or_(
                and_(
                    col(ReportDay.reconciled_at).is_(None),
                    col(ReportDay.sealed_at) <= now - settle,
                ),
                col(ReportDay.reconciled_at) <= now - interval,
            ),
        )
        .order_by(col(ReportDay.report_date))
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    requested, postponed = [], []
    for found in (await session.exec(due)).all():
        day = business_day(found.report_date, timezone=timezone)
        try:
            async with session.begin_nested():
                found.reconciled_at = now
                await request(session, day=day, trigger=RunTrigger.RECONCILE, now=now)
            requested.append(day.date)
        except DBAPIError:
            postponed.append(day.date)
    return Reconciliation(requested=requested, postponed=postponed)


async def wake_schedulers(session: AsyncSession) -> None:
    """Have the schedulers look for pending runs as soon as the caller's transaction commits.

    Only a short cut: who misses it looks a second later anyway.
    """
    await session.execute(select(func.pg_notify(RUNS_CHANNEL, "")))


async def add_or_join(session: AsyncSession, run: ReportRun) -> Requested:
    """Let a run wait for its date, or join the one that does; that one is locked then."""
    statement = (
        insert(ReportRun)
        .values(**_row(run))
        .on_conflict_do_update(
            index_elements=[col(ReportRun.report_date)],
            index_where=text("state IN ('pending', 'queued')"),
            set_={
                "available_at": func.least(ReportRun.available_at, run.available_at),
                "priority": func.least(ReportRun.priority, run.priority),
            },
        )
        .returning(ReportRun)
        .execution_options(populate_existing=True)
    )
    kept = (await session.scalars(statement)).one()
    return Requested(run=kept, joined=kept.id != run.id)


def _row(run: ReportRun) -> dict[str, Any]:
    return run.model_dump(exclude={"created_at"})


async def _end_as_joined(
    session: AsyncSession, run: ReportRun, waiting: ReportRun, *, now: datetime
) -> None:
    run.state = RunState.SKIPPED
    run.cause = NoWork.JOINED
    run.joined_run_id = waiting.id
    run.reason = joined_because(waiting.id, run.report_date)
    run.finished_at = now
    await session.flush()
    # Whoever joined it follows, so that each of them names the run that does the work.
    await session.execute(
        update(ReportRun)
        .where(col(ReportRun.joined_run_id) == run.id, col(ReportRun.cause) == NoWork.JOINED)
        .values(joined_run_id=waiting.id)
        .execution_options(synchronize_session=False)
    )


def _count(result: Result[Any]) -> int:
    return cast("CursorResult[Any]", result).rowcount


async def _lock_held(session: AsyncSession, run_id: UUID, *, fence: int) -> ReportRun | None:
    statement = (
        select(ReportRun)
        .where(*_held(run_id, fence))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


def _held(run_id: UUID, fence: int) -> tuple[ColumnElement[bool], ...]:
    return (
        col(ReportRun.id) == run_id,
        col(ReportRun.fence) == fence,
        col(ReportRun.state) == RunState.RUNNING,
    )


async def _take_back(session: AsyncSession, run: ReportRun, *, now: datetime) -> None:
    if run.state == RunState.QUEUED:
        await _back_to_pending(session, run, now=now, available_at=now)
        return
    await _attempt_failed(
        session,
        run,
        error_code="lease_expired",
        error_detail=f"worker {run.worker} was not heard of in time",
        retryable=True,
        now=now,
        pause=timedelta(0),
    )


async def _attempt_failed(
    session: AsyncSession,
    run: ReportRun,
    *,
    error_code: str,
    error_detail: str,
    retryable: bool,
    now: datetime,
    pause: timedelta | None = None,
) -> None:
    run.error_code = error_code
    run.error_detail = error_detail[:2000]
    if retryable and run.attempt < run.max_attempts:
        after = backoff(run.attempt) if pause is None else pause
        await _back_to_pending(session, run, now=now, available_at=now + after)
        return
    run.state = RunState.FAILED
    run.reason = "attempts used up" if retryable else "not worth another attempt"
    run.lease_until = None
    run.finished_at = now
    run.progress = None
    # Whoever still holds the old fence must not finish.
    run.fence += 1
    await session.flush()
    await _pause_schedules(session, run, now=now)


async def _pause_schedules(session: AsyncSession, failed: ReportRun, *, now: datetime) -> None:
    """Pause the schedules that want that when a run of theirs, or one they joined, has failed."""
    joined = select(ReportRun.schedule_id).where(ReportRun.joined_run_id == failed.id)
    await session.execute(
        update(Schedule)
        .where(
            col(Schedule.pause_on_failure),
            col(Schedule.enabled),
            or_(col(Schedule.id) == failed.schedule_id, col(Schedule.id).in_(joined)),
        )
        .values(
            enabled=False,
            # A fire that is due but not written down yet will be skipped: it belongs to the pause.
            paused_at=func.least(now, Schedule.next_fire_at),
            note=f"paused itself: run {failed.id} of {failed.report_date} has failed",
            version=col(Schedule.version) + 1,
        )
        .execution_options(synchronize_session=False)
    )


async def _back_to_pending(
    session: AsyncSession, run: ReportRun, *, now: datetime, available_at: datetime
) -> None:
    """Let a run wait again; or end it when another run waits for its date already."""
    run.lease_until = None
    run.queued_at = None
    run.progress = None
    # Whoever still holds the old fence must not finish.
    run.fence += 1
    await session.flush()
    pending = (
        update(ReportRun)
        .where(col(ReportRun.id) == run.id)
        .values(state=RunState.PENDING, available_at=available_at)
        .execution_options(synchronize_session=False)
    )
    while True:
        try:
            async with session.begin_nested():
                await session.execute(pending)
            break
        except IntegrityError:
            # It need not be locked: it began to wait after this one, and so it builds no less.
            waiting = await queries.find_waiting_run(session, run.report_date)
            if waiting is not None:
                await _end_as_joined(session, run, waiting, now=now)
                return
            # The run that waited was claimed in this very moment: the place is free again.
    await session.refresh(run)


def backoff(attempt: int) -> timedelta:
    """Return the pause after failed attempt number `attempt`: doubling, capped, jittered by half.

    Source: "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), equal jitter.
    """
    # Twenty doublings are far beyond the cap; more would overflow.
    full = min(BACKOFF_BASE * (1 << min(attempt - 1, 20)), BACKOFF_CAP)
    return full / 2 + full / 2 * random.random()
