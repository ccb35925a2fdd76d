"""The ledger of fires: each due fire is recorded once, as a run or with the cause of its skip.

Set-based: a thousand fires take as many statements as one. Runs in the caller's transaction.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.orm import aliased
from sqlmodel import col, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.runs import queries
from daybook_domain.runs.models import ReportRun, RunState, SkipCause


@dataclass(frozen=True)
class Fire:
    """One due time of a schedule; `cause` and `reason` are set if a policy skips it."""

    schedule_id: int
    scheduled_for: datetime
    day: date
    available_at: datetime
    cause: SkipCause | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[int, datetime]:
        """The unique key of the fire in the ledger (P1)."""
        return self.schedule_id, self.scheduled_for


STATE_BY_CAUSE = {
    None: RunState.PENDING,
    SkipCause.JOINED: RunState.SKIPPED,
    SkipCause.OVERLAP: RunState.SKIPPED,
    SkipCause.PAUSED: RunState.SKIPPED,
    SkipCause.OUTSIDE_WINDOW: RunState.MISSED,
    SkipCause.CATCHUP: RunState.MISSED,
}

BACKFILL_CANCELLED = "the backfill was cancelled"
"""The reason of a run that was cancelled only because its backfill was.

Nobody cancelled the fires that joined it at that moment, so they get a run of their own: see
`cancellation.restart_joined_fires`.
"""

FireCounts = Counter[SkipCause | None]
"""The number of recorded fires by cause; None: a run of their own."""


@dataclass(frozen=True)
class _LedgerRow:
    fire: Fire
    joined_run_id: UUID | None = None
    id: UUID = field(default_factory=uuid4)


async def record(session: AsyncSession, fires: Sequence[Fire], *, now: datetime) -> FireCounts:
    """Record due fires, each as a run or as skipped; count those that were not recorded before.

    A fire whose date has a waiting run joins it, also the run of another fire in `fires`.
    """
    skipped = [_LedgerRow(fire) for fire in fires if fire.cause is not None]
    counts = await _insert(session, skipped, now=now)
    remaining = [fire for fire in fires if fire.cause is None]
    while remaining:
        added, remaining = await _insert_or_join(session, remaining, now=now)
        counts += added
        # The rest conflicted with a run that was inserted or claimed concurrently: try again.
        remaining = await _exclude_recorded(session, remaining) if remaining else []
    return counts


async def _insert_or_join(
    session: AsyncSession, fires: Sequence[Fire], *, now: datetime
) -> tuple[FireCounts, list[Fire]]:
    """Insert one run a date and join the other fires to it; return the counts and the rest.

    The rest are fires of dates whose waiting run was inserted by a concurrent transaction.
    """
    # A waiting run need not be locked: it was still waiting when these fires were due, so its
    # build includes their data. A run that is cancelled concurrently is handled afterwards, by
    # `cancel_joined_fires` and `cancellation.restart_joined_fires`.
    waiting = await queries.list_waiting_runs(session, {fire.day for fire in fires})
    first_of_date: dict[date, _LedgerRow] = {}
    for fire in fires:
        if fire.day not in waiting:
            first_of_date.setdefault(fire.day, _LedgerRow(fire))
    # Sorted by date, so that two schedulers cannot deadlock.
    rows = sorted(first_of_date.values(), key=lambda row: row.fire.day)
    counts = await _insert(session, rows, now=now)
    inserted = await _list_inserted(session, rows) if counts[None] < len(rows) else rows
    waiting |= {row.fire.day: row.id for row in inserted}
    inserted_keys = {row.fire.key for row in inserted}
    joining = [fire for fire in fires if fire.key not in inserted_keys and fire.day in waiting]
    counts += await _insert(
        session, [_join(fire, run_id=waiting[fire.day]) for fire in joining], now=now
    )
    await _promote(session, joining, waiting)
    return counts, [fire for fire in fires if fire.day not in waiting]


def _join(fire: Fire, *, run_id: UUID) -> _LedgerRow:
    reason = joined_reason(run_id, day=fire.day)
    return _LedgerRow(replace(fire, cause=SkipCause.JOINED, reason=reason), joined_run_id=run_id)


def joined_reason(run_id: UUID, *, day: date) -> str:
    """Return the reason of a run that ended because another was waiting for its date."""
    return f"joined: run {run_id} was waiting for {day} already"


# Without a conflict target both unique keys apply: that of fires, and that of waiting runs.
_INSERT = text(
    """
    INSERT INTO report_runs (id, report_date, trigger, schedule_id, scheduled_for, state, cause,
        reason, joined_run_id, priority, attempt, max_attempts, available_at, finished_at, fence,
        timezone)
    SELECT fire.id, fire.day, 'schedule', fire.schedule_id, fire.scheduled_for, fire.state,
        fire.cause, fire.reason, fire.joined_run_id, 0, 0, 5, fire.available_at,
        CASE WHEN fire.state <> 'pending' THEN CAST(:now AS timestamptz) END, 0,
        (SELECT timezone FROM business_timezone WHERE is_only FOR SHARE)
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:days AS date[]), CAST(:schedules AS bigint[]),
        CAST(:instants AS timestamptz[]), CAST(:states AS text[]), CAST(:causes AS text[]),
        CAST(:reasons AS text[]), CAST(:joined AS uuid[]), CAST(:available AS timestamptz[])
    ) AS fire(id, day, schedule_id, scheduled_for, state, cause, reason, joined_run_id,
        available_at)
    ON CONFLICT DO NOTHING
    RETURNING cause
    """
)


async def _insert(
    session: AsyncSession, rows: Sequence[_LedgerRow], *, now: datetime
) -> FireCounts:
    if not rows:
        return Counter()
    inserted = await session.execute(
        _INSERT,
        {
            "now": now,
            "ids": [row.id for row in rows],
            "days": [row.fire.day for row in rows],
            "schedules": [row.fire.schedule_id for row in rows],
            "instants": [row.fire.scheduled_for for row in rows],
            "states": [STATE_BY_CAUSE[row.fire.cause].value for row in rows],
            "causes": [row.fire.cause and row.fire.cause.value for row in rows],
            "reasons": [row.fire.reason for row in rows],
            "joined": [row.joined_run_id for row in rows],
            "available": [row.fire.available_at for row in rows],
        },
    )
    return Counter(cause and SkipCause(cause) for (cause,) in inserted)


async def _list_inserted(session: AsyncSession, rows: Sequence[_LedgerRow]) -> list[_LedgerRow]:
    statement = select(ReportRun.id).where(col(ReportRun.id).in_([row.id for row in rows]))
    inserted_ids = set((await session.exec(statement)).all())
    return [row for row in rows if row.id in inserted_ids]


async def _exclude_recorded(session: AsyncSession, fires: Sequence[Fire]) -> list[Fire]:
    key = tuple_(col(ReportRun.schedule_id), col(ReportRun.scheduled_for))
    statement = select(ReportRun.schedule_id, ReportRun.scheduled_for).where(
        key.in_([fire.key for fire in fires])
    )
    recorded_keys = set((await session.exec(statement)).all())
    return [fire for fire in fires if fire.key not in recorded_keys]


# A run that is delayed by jitter, by a backoff or by the low priority of a backfill must not delay
# a fire that joins it. A locked run is being dispatched, or promoted by another transaction.
_PROMOTE = text(
    """
    UPDATE report_runs SET
        available_at = least(report_runs.available_at, joining.available_at), priority = 0
    FROM unnest(CAST(:ids AS uuid[]), CAST(:instants AS timestamptz[]))
        AS joining(run_id, available_at)
    WHERE report_runs.id IN (
        SELECT run.id FROM report_runs AS run
        JOIN unnest(CAST(:ids AS uuid[]), CAST(:instants AS timestamptz[]))
                AS joining(run_id, available_at)
            ON joining.run_id = run.id
            AND (joining.available_at < run.available_at OR run.priority > 0)
        WHERE run.state IN ('pending', 'queued')
        FOR UPDATE OF run SKIP LOCKED
    ) AND report_runs.id = joining.run_id
    """
)


async def _promote(session: AsyncSession, fires: Iterable[Fire], waiting: dict[date, UUID]) -> None:
    earliest: dict[UUID, datetime] = {}
    for fire in fires:
        run_id = waiting[fire.day]
        earliest[run_id] = min(fire.available_at, earliest.get(run_id, fire.available_at))
    if earliest:
        await session.execute(
            _PROMOTE, {"ids": list(earliest), "instants": list(earliest.values())}
        )


_BUSY_SCHEDULES = text(
    """
    SELECT schedule_id FROM report_runs
    WHERE schedule_id = ANY (CAST(:schedules AS bigint[]))
        AND state IN ('pending', 'queued', 'running')
    UNION
    SELECT fire.schedule_id
    FROM report_runs AS fire JOIN report_runs AS joined_run ON joined_run.id = fire.joined_run_id
    WHERE fire.schedule_id = ANY (CAST(:schedules AS bigint[])) AND fire.cause = 'joined'
        AND joined_run.state IN ('pending', 'queued', 'running')
    """
)


async def list_busy_schedules(session: AsyncSession, schedules: Sequence[int]) -> set[int]:
    """Return those of the schedules that have an unfinished run, their own or one they joined."""
    if not schedules:
        return set()
    return set((await session.execute(_BUSY_SCHEDULES, {"schedules": schedules})).scalars())


# The `reason` of the cancelled run has who cancelled it, and why.
_CANCEL_JOINED = text(
    """
    UPDATE report_runs AS fire SET
        state = 'cancelled', cause = NULL, finished_at = :now,
        reason = 'the run that it joined, ' || joined_run.id || ', was cancelled'
    FROM report_runs AS joined_run
    WHERE joined_run.state = 'cancelled' AND joined_run.finished_at > :since
        AND fire.joined_run_id = joined_run.id AND fire.state = 'skipped'
        AND fire.cause = 'joined'
        AND (joined_run.backfill_id IS NULL OR joined_run.reason <> :backfill_cancelled)
    """
)


async def cancel_joined_fires(session: AsyncSession, *, now: datetime, within: timedelta) -> None:
    """Cancel the fires that joined a run which a user cancelled less than `within` ago.

    To be called periodically: a fire can join a run while that is being cancelled.
    """
    await session.execute(
        _CANCEL_JOINED,
        {"now": now, "since": now - within, "backfill_cancelled": BACKFILL_CANCELLED},
    )


async def list_abandoned_fires_for_update(
    session: AsyncSession, *, since: datetime, limit: int
) -> Sequence[ReportRun]:
    """Return fires whose joined run was cancelled after `since` because its backfill was."""
    joined_run = aliased(ReportRun)
    statement = (
        select(ReportRun)
        .join(joined_run, col(joined_run.id) == col(ReportRun.joined_run_id))
        .where(
            ReportRun.state == RunState.SKIPPED,
            ReportRun.cause == SkipCause.JOINED,
            joined_run.state == RunState.CANCELLED,
            col(joined_run.finished_at) > since,
            col(joined_run.backfill_id).is_not(None),
            joined_run.reason == BACKFILL_CANCELLED,
        )
        .limit(limit)
        .with_for_update(of=ReportRun, skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).all()
