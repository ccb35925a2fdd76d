"""What can be asked about backfills? Reads; decides nothing."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.backfills.decisions import DayFacts
from daybook_domain.backfills.errors import BackfillNotFound
from daybook_domain.backfills.models import Backfill, BackfillState

ENDED = {"succeeded", "failed", "cancelled"}
RATE_OVER = timedelta(minutes=1)


@dataclass(frozen=True)
class BackfillProgress:
    """How far a backfill has come."""

    total: int
    outcomes: Counter[str] = field(default_factory=Counter)
    """How many dates have come to which outcome; those with a run are counted by its state."""
    joined: int = 0
    """How many of them another run has built, or builds."""
    built_lately: int = 0
    """How many were built, or failed, within the last minute."""

    @property
    def done(self) -> int:
        """How many dates nothing more will become of."""
        return sum(
            count
            for outcome, count in self.outcomes.items()
            if outcome in ENDED or outcome.startswith("skipped")
        )

    @property
    def untouched(self) -> int:
        """How many dates have not been decided about."""
        return self.total - self.outcomes.total()


@dataclass(frozen=True)
class BackfillDayStatus:
    """One date of a backfill."""

    report_date: date
    outcome: str
    """Of a date with a run: that run's state."""
    run_id: UUID | None
    joined: bool
    revision: int | None
    error_code: str | None
    error_detail: str | None
    settled_at: datetime | None


async def get_backfill(session: AsyncSession, backfill_id: UUID, *, lock: bool = False) -> Backfill:
    """Return a backfill, locked for the caller on request, or raise `BackfillNotFound`."""
    statement = select(Backfill).where(Backfill.id == backfill_id)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    found = (await session.exec(statement)).one_or_none()
    if found is None:
        raise BackfillNotFound(
            f"There is no backfill {backfill_id}; GET /report/backfills lists the latest."
        )
    return found


async def list_backfills(
    session: AsyncSession,
    *,
    states: Sequence[BackfillState] = (),
    before: tuple[datetime, UUID] | None = None,
    limit: int,
) -> Sequence[Backfill]:
    """Return backfills, newest first; `before` is the `(created_at, id)` of the last one seen."""
    statement = select(Backfill)
    if states:
        statement = statement.where(col(Backfill.state).in_(states))
    if before is not None:
        statement = statement.where(tuple_(col(Backfill.created_at), col(Backfill.id)) < before)
    newest = (col(Backfill.created_at).desc(), col(Backfill.id).desc())
    return (await session.exec(statement.order_by(*newest).limit(limit))).all()


# The run of a date may have joined another in turn, when it was to wait again.
_DAYS = """
    SELECT d.backfill_id, d.report_date, d.joined, d.settled_at,
        coalesce(work.id, run.id, d.run_id) AS run_id,
        CASE WHEN d.outcome = 'open' THEN coalesce(work.state, run.state, 'cancelled')
            ELSE d.outcome END AS outcome,
        coalesce(work.revision, run.revision) AS revision,
        coalesce(work.error_code, run.error_code) AS error_code,
        coalesce(work.error_detail, run.error_detail) AS error_detail
    FROM backfill_days AS d
    LEFT JOIN report_runs AS run ON run.id = d.run_id
    LEFT JOIN report_runs AS work ON work.id = run.joined_run_id AND run.cause = 'joined'
"""

_PROGRESS = text(
    f"""
    SELECT backfill_id, outcome, count(*) AS days, count(*) FILTER (WHERE joined) AS joined,
        count(*) FILTER (
            WHERE settled_at > :lately AND outcome IN ('succeeded', 'failed')
        ) AS built_lately
    FROM ({_DAYS}) AS day
    WHERE backfill_id = ANY (CAST(:ids AS uuid[]))
    GROUP BY backfill_id, outcome
    """
)


async def get_progress(
    session: AsyncSession, backfills: Sequence[Backfill], *, now: datetime
) -> dict[UUID, BackfillProgress]:
    """Return how far each of the backfills has come."""
    found: dict[UUID, BackfillProgress] = {b.id: BackfillProgress(total=b.total) for b in backfills}
    rows = await session.execute(_PROGRESS, {"ids": list(found), "lately": now - RATE_OVER})
    for row in rows:
        so_far = found[row.backfill_id]
        found[row.backfill_id] = BackfillProgress(
            total=so_far.total,
            outcomes=so_far.outcomes + Counter({row.outcome: row.days}),
            joined=so_far.joined + row.joined,
            built_lately=so_far.built_lately + row.built_lately,
        )
    return found


_PAGE = text(
    f"""
    SELECT report_date, outcome, run_id, joined, revision, error_code, error_detail, settled_at
    FROM ({_DAYS}) AS day
    WHERE backfill_id = :id AND report_date > coalesce(CAST(:after AS date), '-infinity')
        AND (CAST(:outcomes AS text[]) = '{{}}' OR outcome = ANY (CAST(:outcomes AS text[])))
    ORDER BY report_date
    LIMIT :limit
    """
)


async def list_backfill_days(
    session: AsyncSession,
    backfill_id: UUID,
    *,
    outcomes: Collection[str] = (),
    after: date | None = None,
    limit: int,
) -> list[BackfillDayStatus]:
    """Return the dates that a backfill has come to, by date, those after `after`."""
    rows = await session.execute(
        _PAGE,
        {"id": backfill_id, "after": after, "outcomes": list(outcomes), "limit": limit},
    )
    return [BackfillDayStatus(**row._mapping) for row in rows]


_FACTS = text(
    """
    SELECT day.date, line.sealed_at IS NOT NULL AS sealed, waiting.id AS waiting_run_id,
        begun.id AS begun_run_id, begun.started_at AS begun_at,
        coalesce(begun.state = 'running', false) AS is_running,
        coalesce(ended.state = 'failed', false) AS failed
    FROM unnest(CAST(:days AS date[])) AS day(date)
    LEFT JOIN report_days AS line ON line.report_date = day.date
    LEFT JOIN report_runs AS waiting
        ON waiting.report_date = day.date AND waiting.state IN ('pending', 'queued')
    LEFT JOIN LATERAL (
        SELECT id, started_at, state FROM report_runs
        WHERE report_date = day.date AND state IN ('running', 'succeeded')
        ORDER BY started_at DESC LIMIT 1
    ) AS begun ON true
    LEFT JOIN LATERAL (
        SELECT state FROM report_runs
        WHERE report_date = day.date AND state IN ('succeeded', 'failed')
        ORDER BY finished_at DESC LIMIT 1
    ) AS ended ON true
    """
)


async def get_day_facts(session: AsyncSession, days: Sequence[date]) -> dict[date, DayFacts]:
    """Return what is known about each of `days`."""
    rows = await session.execute(_FACTS, {"days": list(days)})
    return {
        row.date: DayFacts(
            sealed=row.sealed,
            failed=row.failed,
            waiting_run_id=row.waiting_run_id,
            begun_run_id=row.begun_run_id,
            begun_at=row.begun_at,
            is_running=row.is_running,
        )
        for row in rows
    }
