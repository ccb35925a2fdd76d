"""How do due fires get into the ledger, each once, as work or with the reason why not?

Set-based: a thousand fires take as many statements as one. Writes, inside the caller's transaction.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlmodel import col, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.runs import queries
from daybook_domain.runs.models import ReportRun, RunState, SkipCause


@dataclass(frozen=True)
class Fire:
    """One due time of a schedule; with `cause` and `reason` where by policy it becomes no work."""

    schedule_id: int
    scheduled_for: datetime
    day: date
    available_at: datetime
    cause: SkipCause | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[int, datetime]:
        """What is there once in the ledger (P1)."""
        return self.schedule_id, self.scheduled_for


STATE_BY_CAUSE = {
    None: RunState.PENDING,
    SkipCause.JOINED: RunState.SKIPPED,
    SkipCause.OVERLAP: RunState.SKIPPED,
    SkipCause.PAUSED: RunState.SKIPPED,
    SkipCause.OUTSIDE_WINDOW: RunState.MISSED,
    SkipCause.CATCHUP: RunState.MISSED,
}

FireCounts = Counter[SkipCause | None]
"""How many fires became what; None: work of their own."""


@dataclass(frozen=True)
class _Row:
    fire: Fire
    joined_run_id: UUID | None = None
    id: UUID = field(default_factory=uuid4)


async def record(session: AsyncSession, fires: Sequence[Fire], *, now: datetime) -> FireCounts:
    """Turn due fires into runs, or into the reason why not; those known already change nothing.

    A fire whose date has a waiting run joins it, also that of another fire among these.
    """
    ended = [_Row(fire) for fire in fires if fire.cause is not None]
    recorded = await _insert(session, ended, now=now)
    work = [fire for fire in fires if fire.cause is None]
    while work:
        added, work = await _add_or_join(session, work, now=now)
        recorded += added
        # What is left met a run that began to wait, or was claimed, in this very moment.
        work = await _unknown(session, work) if work else []
    return recorded


async def _add_or_join(
    session: AsyncSession, fires: Sequence[Fire], *, now: datetime
) -> tuple[FireCounts, list[Fire]]:
    """Record what can be; return the counts, and the fires whose place was taken meanwhile."""
    # A waiting run need not be locked: it was waiting after these fires were due, so whoever
    # claims it builds what they are about. `end_joined` sees to one that is cancelled just now.
    waiting = await queries.list_waiting_runs(session, {fire.day for fire in fires})
    first: dict[date, _Row] = {}
    for fire in fires:
        if fire.day not in waiting:
            first.setdefault(fire.day, _Row(fire))
    # In the order of dates, so that two schedulers cannot wait for each other.
    chosen = sorted(first.values(), key=lambda row: row.fire.day)
    recorded = await _insert(session, chosen, now=now)
    there = await _which_are_there(session, chosen) if recorded[None] < len(chosen) else chosen
    waiting |= {row.fire.day: row.id for row in there}
    own = {row.fire.key for row in there}
    joining = [fire for fire in fires if fire.key not in own and fire.day in waiting]
    recorded += await _insert(
        session, [_join(fire, waiting[fire.day]) for fire in joining], now=now
    )
    await _pull(session, joining, waiting)
    return recorded, [fire for fire in fires if fire.day not in waiting]


def _join(fire: Fire, run_id: UUID) -> _Row:
    reason = joined_reason(run_id, fire.day)
    return _Row(replace(fire, cause=SkipCause.JOINED, reason=reason), joined_run_id=run_id)


def joined_reason(run_id: UUID, day: date) -> str:
    """Return the reason of a run that ended because another was waiting for its date."""
    return f"joined: run {run_id} was waiting for {day} already"


# Without a conflict target both keys count: the fire's, and that of a waiting run.
_INSERT = text(
    """
    INSERT INTO report_runs (id, report_date, trigger, schedule_id, scheduled_for, state, cause,
        reason, joined_run_id, priority, attempt, max_attempts, available_at, finished_at, fence)
    SELECT fire.id, fire.day, 'schedule', fire.schedule_id, fire.scheduled_for, fire.state,
        fire.cause, fire.reason, fire.joined_run_id, 0, 0, 5, fire.available_at,
        CASE WHEN fire.state <> 'pending' THEN CAST(:now AS timestamptz) END, 0
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


async def _insert(session: AsyncSession, rows: Sequence[_Row], *, now: datetime) -> FireCounts:
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


async def _which_are_there(session: AsyncSession, rows: Sequence[_Row]) -> list[_Row]:
    statement = select(ReportRun.id).where(col(ReportRun.id).in_([row.id for row in rows]))
    there = set((await session.exec(statement)).all())
    return [row for row in rows if row.id in there]


async def _unknown(session: AsyncSession, fires: Sequence[Fire]) -> list[Fire]:
    key = tuple_(col(ReportRun.schedule_id), col(ReportRun.scheduled_for))
    statement = select(ReportRun.schedule_id, ReportRun.scheduled_for).where(
        key.in_([fire.key for fire in fires])
    )
    known = set((await session.exec(statement)).all())
    return [fire for fire in fires if fire.key not in known]


# A run that waits for its jitter, after a failure, or as part of a backfill is not to delay a fire
# that joins it. One that somebody holds is about to be sent, or pulled forward by another.
_PULL = text(
    """
    UPDATE report_runs SET
        available_at = least(report_runs.available_at, sooner.at), priority = 0
    FROM unnest(CAST(:ids AS uuid[]), CAST(:instants AS timestamptz[])) AS sooner(id, at)
    WHERE report_runs.id IN (
        SELECT run.id FROM report_runs AS run
        JOIN unnest(CAST(:ids AS uuid[]), CAST(:instants AS timestamptz[])) AS wanted(id, at)
            ON wanted.id = run.id AND (wanted.at < run.available_at OR run.priority > 0)
        WHERE run.state IN ('pending', 'queued')
        FOR UPDATE OF run SKIP LOCKED
    ) AND report_runs.id = sooner.id
    """
)


async def _pull(session: AsyncSession, fires: Iterable[Fire], waiting: dict[date, UUID]) -> None:
    soonest: dict[UUID, datetime] = {}
    for fire in fires:
        run_id = waiting[fire.day]
        soonest[run_id] = min(fire.available_at, soonest.get(run_id, fire.available_at))
    if soonest:
        await session.execute(_PULL, {"ids": list(soonest), "instants": list(soonest.values())})


_GOING = text(
    """
    SELECT schedule_id FROM report_runs
    WHERE schedule_id = ANY (CAST(:schedules AS bigint[]))
        AND state IN ('pending', 'queued', 'running')
    UNION
    SELECT fire.schedule_id
    FROM report_runs AS fire JOIN report_runs AS work ON work.id = fire.joined_run_id
    WHERE fire.schedule_id = ANY (CAST(:schedules AS bigint[])) AND fire.cause = 'joined'
        AND work.state IN ('pending', 'queued', 'running')
    """
)


async def list_busy_schedules(session: AsyncSession, schedules: Sequence[int]) -> set[int]:
    """Return those of the schedules with work that has not ended, their own or one they joined."""
    if not schedules:
        return set()
    return set((await session.execute(_GOING, {"schedules": schedules})).scalars())


# The cancelled run's `reason` says who and why.
_END_JOINED = text(
    """
    UPDATE report_runs AS fire SET
        state = 'cancelled', cause = NULL, finished_at = :now,
        reason = 'the run that it joined, ' || work.id || ', was cancelled'
    FROM report_runs AS work
    WHERE work.state = 'cancelled' AND work.finished_at > :since
        AND fire.joined_run_id = work.id AND fire.state = 'skipped' AND fire.cause = 'joined'
    """
)


async def cancel_joined_fires(session: AsyncSession, *, now: datetime, within: timedelta) -> None:
    """Have the fires end as cancelled that joined a run which was cancelled `within` this time.

    Again and again, for a fire can be about to join a run in the moment in which it is cancelled.
    """
    await session.execute(_END_JOINED, {"now": now, "since": now - within})
