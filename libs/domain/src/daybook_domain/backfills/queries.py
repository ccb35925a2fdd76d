"""Queries of backfills and their dates."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.backfills.decisions import DayFacts
from daybook_domain.backfills.errors import BackfillNotFound
from daybook_domain.backfills.models import Backfill, BackfillState


class BackfillDayState(StrEnum):
    """The outcome of a date, or the state of its run while that is active."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    MISSED = "missed"
    SEALED = "skipped: sealed"
    NOT_FAILED = "skipped: not failed"
    NONEXISTENT = "skipped: never was"


ENDED_OUTCOMES = {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True)
class BackfillProgress:
    """Counts of the dates of a backfill, by outcome."""

    total: int
    outcomes: Counter[str] = field(default_factory=Counter)
    """Number of dates per outcome; a date with an active run is counted by the run's state."""
    joined: int = 0
    """Number of those dates that a joined run builds or has built."""
    built_last_minute: int = 0
    """Number of dates whose build succeeded or failed within the last minute."""

    @property
    def done(self) -> int:
        """The number of dates with a final outcome."""
        return sum(
            count
            for outcome, count in self.outcomes.items()
            if outcome in ENDED_OUTCOMES or outcome.startswith("skipped")
        )

    @property
    def untouched(self) -> int:
        """The number of dates that are not decided about yet."""
        return self.total - self.outcomes.total()


@dataclass(frozen=True)
class BackfillDayStatus:
    """One date of a backfill."""

    report_date: date
    outcome: str
    """The state of the run, for a date whose run is active."""
    run_id: UUID | None
    joined: bool
    revision: int | None
    error_code: str | None
    error_detail: str | None
    settled_at: datetime | None


async def get_backfill(session: AsyncSession, backfill_id: UUID) -> Backfill:
    """Return a backfill. Raises `BackfillNotFound`."""
    found = (await session.exec(select(Backfill).where(Backfill.id == backfill_id))).one_or_none()
    if found is None:
        raise _not_found(backfill_id)
    return found


async def get_backfill_for_update(session: AsyncSession, backfill_id: UUID) -> Backfill:
    """Lock and return a backfill. Raises `BackfillNotFound`."""
    statement = (
        select(Backfill)
        .where(Backfill.id == backfill_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    found = (await session.exec(statement)).one_or_none()
    if found is None:
        raise _not_found(backfill_id)
    return found


def _not_found(backfill_id: UUID) -> BackfillNotFound:
    return BackfillNotFound(
        f"Backfill {backfill_id} does not exist; GET /report/backfills lists the latest."
    )


async def list_backfills(
    session: AsyncSession,
    *,
    states: Sequence[BackfillState] = (),
    before: tuple[datetime, UUID] | None = None,
    limit: int,
) -> Sequence[Backfill]:
    """Return backfills, newest first.

    `before` is the `(created_at, id)` of the last backfill on the previous page.
    """
    statement = select(Backfill)
    if states:
        statement = statement.where(col(Backfill.state).in_(states))
    if before is not None:
        statement = statement.where(tuple_(col(Backfill.created_at), col(Backfill.id)) < before)
    newest = (col(Backfill.created_at).desc(), col(Backfill.id).desc())
    return (await session.exec(statement.order_by(*newest).limit(limit))).all()


# The run of a date may itself have joined another run when it returned to pending.
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
            WHERE settled_at > :minute_ago AND outcome IN ('succeeded', 'failed')
        ) AS built_last_minute
    FROM ({_DAYS}) AS day
    WHERE backfill_id = ANY (CAST(:ids AS uuid[]))
    GROUP BY backfill_id, outcome
    """
)


async def get_progress(
    session: AsyncSession, backfills: Sequence[Backfill], *, now: datetime
) -> dict[UUID, BackfillProgress]:
    """Return the progress of each of the backfills, by id."""
    found: dict[UUID, BackfillProgress] = {b.id: BackfillProgress(total=b.total) for b in backfills}
    rows = await session.execute(
        _PROGRESS, {"ids": list(found), "minute_ago": now - timedelta(minutes=1)}
    )
    for row in rows:
        so_far = found[row.backfill_id]
        found[row.backfill_id] = BackfillProgress(
            total=so_far.total,
            outcomes=so_far.outcomes + Counter({row.outcome: row.days}),
            joined=so_far.joined + row.joined,
            built_last_minute=so_far.built_last_minute + row.built_last_minute,
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
    """Return up to `limit` decided dates of a backfill after `after`, by date."""
    rows = await session.execute(
        _PAGE,
        {"id": backfill_id, "after": after, "outcomes": list(outcomes), "limit": limit},
    )
    return [BackfillDayStatus(**row._mapping) for row in rows]


_FACTS = text(
    """
    SELECT day.date, report.sealed_at IS NOT NULL AS sealed, pending.id AS pending_run_id,
        started.id AS started_run_id, started.started_at,
        coalesce(started.state = 'running', false) AS is_running,
        coalesce(ended.state = 'failed', false) AS failed
    FROM unnest(CAST(:days AS date[])) AS day(date)
    LEFT JOIN report_days AS report ON report.report_date = day.date
    LEFT JOIN report_runs AS pending
        ON pending.report_date = day.date AND pending.state IN ('pending', 'queued')
    LEFT JOIN LATERAL (
        SELECT id, started_at, state FROM report_runs
        WHERE report_date = day.date AND state IN ('running', 'succeeded')
        ORDER BY started_at DESC LIMIT 1
    ) AS started ON true
    LEFT JOIN LATERAL (
        SELECT state FROM report_runs
        WHERE report_date = day.date AND state IN ('succeeded', 'failed')
        ORDER BY finished_at DESC LIMIT 1
    ) AS ended ON true
    """
)


async def get_day_facts(session: AsyncSession, days: Sequence[date]) -> dict[date, DayFacts]:
    """Return the facts of each of `days`, by date."""
    rows = await session.execute(_FACTS, {"days": list(days)})
    return {
        row.date: DayFacts(
            sealed=row.sealed,
            failed=row.failed,
            pending_run_id=row.pending_run_id,
            started_run_id=row.started_run_id,
            started_at=row.started_at,
            is_running=row.is_running,
        )
        for row in rows
    }
