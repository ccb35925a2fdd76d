"""Decisions of users about backfills, in the caller's transaction.

running ──▶ finished        every date has an outcome (see progression.py)
  ▲  │
  │  ├──▶ paused            pending and running runs continue
  └──┼────┘
     └──▶ cancelled         pending runs are cancelled, running ones continue
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.backfills import queries
from daybook_domain.backfills.decisions import DayDecision, decide
from daybook_domain.backfills.errors import BackfillEnded, InvalidRange
from daybook_domain.backfills.models import Backfill, BackfillMode, BackfillState
from daybook_domain.errors import Invalid
from daybook_domain.reports.business_day import FIRST_DATE, business_day, local_date
from daybook_domain.runs.fire_ledger import BACKFILL_CANCELLED
from daybook_domain.runs.requests import notify_schedulers

MAX_RANGE_DAYS = 3_660
MAX_CONCURRENCY = 100
DEFAULT_CONCURRENCY = 4
"""Default of the maximum number of dates that are pending or running at the same time."""

ACTIVE_STATES = (BackfillState.RUNNING, BackfillState.PAUSED)


@dataclass(frozen=True, kw_only=True)
class BackfillRange:
    """The dates to build; `last` is inclusive."""

    first: date
    last: date
    mode: BackfillMode = BackfillMode.ABSENT

    @property
    def days(self) -> Iterator[date]:
        """The dates, in order."""
        count = (self.last - self.first).days + 1
        return (self.first + timedelta(days=n) for n in range(count))

    def validate(self, *, today: date) -> None:
        """Raise `InvalidRange`, with the field, if the range cannot be built.

        Today is allowed: its report stays provisional until the nightly run.
        """
        if self.first > self.last:
            raise InvalidRange(f"`from` ({self.first}) is after `to` ({self.last}).", field="from")
        if self.first < FIRST_DATE:
            raise InvalidRange(
                f"{self.first} is out of range; the first day that can be built is {FIRST_DATE}.",
                field="from",
            )
        if self.last > today:
            raise InvalidRange(
                f"{self.last} is in the future; the last day that can be built is {today}.",
                field="to",
            )
        count = (self.last - self.first).days + 1
        if count > MAX_RANGE_DAYS:
            raise InvalidRange(
                f"the range has {count:,} days; expected at most {MAX_RANGE_DAYS:,}.",
                field="to",
            )


@dataclass(frozen=True)
class RequestedBackfill:
    """The new or active backfill of the range, and whether it was already active."""

    backfill: Backfill
    joined: bool


async def request(
    session: AsyncSession,
    *,
    wanted: BackfillRange,
    timezone: str,
    now: datetime,
    concurrency: int = DEFAULT_CONCURRENCY,
    reason: str | None = None,
    requested_by: str | None = None,
) -> RequestedBackfill:
    """Request the reports of a range, or join the active backfill of the same range and mode.

    The schedulers start its dates. Raises `InvalidRange`, `Invalid`.
    """
    wanted.validate(today=local_date(now, timezone=timezone))
    if not 1 <= concurrency <= MAX_CONCURRENCY:
        raise Invalid(f"{concurrency} is not 1-{MAX_CONCURRENCY}", field="concurrency")
    backfill = Backfill(
        from_date=wanted.first,
        to_date=wanted.last,
        mode=wanted.mode,
        concurrency=concurrency,
        next_date=wanted.first,
        reason=reason,
        requested_by=requested_by,
        created_at=now,
    )
    statement = (
        insert(Backfill)
        .values(**backfill.model_dump())
        .on_conflict_do_update(
            index_elements=[col(Backfill.from_date), col(Backfill.to_date), col(Backfill.mode)],
            index_where=text("state IN ('running', 'paused')"),
            # A no-op update, because only updated rows are locked and returned.
            set_={"from_date": wanted.first},
        )
        .returning(Backfill)
        .execution_options(populate_existing=True)
    )
    stored = (await session.scalars(statement)).one()
    await notify_schedulers(session)
    return RequestedBackfill(stored, joined=stored.id != backfill.id)


async def preview(
    session: AsyncSession, *, wanted: BackfillRange, timezone: str, now: datetime
) -> Sequence[tuple[date, DayDecision]]:
    """Return the decision about each date if the backfill were requested now, by date.

    Raises `InvalidRange`.
    """
    wanted.validate(today=local_date(now, timezone=timezone))
    facts = await queries.get_day_facts(session, list(wanted.days))
    return [
        (
            day,
            decide(wanted.mode, business_day(day, timezone=timezone), facts[day], since=now),
        )
        for day in wanted.days
    ]


async def pause(session: AsyncSession, backfill_id: UUID) -> Backfill:
    """Start no further date; pending and running runs continue. Raises `BackfillEnded`."""
    backfill = await _get_active_for_update(session, backfill_id)
    backfill.state = BackfillState.PAUSED
    await session.flush()
    return backfill


async def resume(session: AsyncSession, backfill_id: UUID) -> Backfill:
    """Resume a paused backfill. Raises `BackfillEnded`."""
    backfill = await _get_active_for_update(session, backfill_id)
    backfill.state = BackfillState.RUNNING
    await session.flush()
    await notify_schedulers(session)
    return backfill


async def cancel(session: AsyncSession, backfill_id: UUID, *, now: datetime) -> Backfill:
    """Cancel a backfill and those of its pending runs that nothing else needs.

    Running builds continue. Cancelling again changes nothing. Raises `BackfillEnded` if the
    backfill has finished.
    """
    backfill = await queries.get_backfill_for_update(session, backfill_id)
    if backfill.state is BackfillState.FINISHED:
        raise _ended(backfill)
    backfill.state = BackfillState.CANCELLED
    await session.flush()
    await session.execute(
        _CANCEL_PENDING_RUNS, {"id": backfill_id, "now": now, "reason": BACKFILL_CANCELLED}
    )
    await notify_schedulers(session)
    return backfill


# A run is needed elsewhere if its priority was raised, or if a fire or another backfill joined it.
# A locked run is about to be dispatched, claimed or joined, so it is skipped and continues. A fire
# that joins the run in a transaction which is not visible yet gets a run of its own later.
_CANCEL_PENDING_RUNS = text(
    """
    UPDATE report_runs AS run SET
        state = 'cancelled', reason = :reason, finished_at = :now,
        lease_until = NULL, progress = NULL, fence = run.fence + 1
    FROM (
        SELECT id FROM report_runs
        WHERE id IN (SELECT run_id FROM backfill_days
                WHERE backfill_id = :id AND outcome = 'open' AND NOT joined)
            AND state IN ('pending', 'queued') AND priority >= 20
        ORDER BY id
        FOR UPDATE SKIP LOCKED
    ) AS own
    WHERE run.id = own.id
        AND NOT EXISTS (SELECT FROM report_runs AS fire WHERE fire.joined_run_id = run.id)
        AND NOT EXISTS (
            SELECT FROM backfill_days AS day JOIN backfills AS other ON other.id = day.backfill_id
            WHERE day.run_id = run.id AND day.outcome = 'open' AND day.backfill_id <> :id
                AND other.state <> 'cancelled'
        )
    """
)

_PRUNE = text(
    """
    DELETE FROM backfills WHERE id IN (
        SELECT id FROM backfills WHERE finished_at < :before
        ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    """
)


async def prune(session: AsyncSession, *, before: datetime, limit: int) -> None:
    """Delete up to `limit` backfills that finished before `before`."""
    await session.execute(_PRUNE, {"before": before, "limit": limit})


async def _get_active_for_update(session: AsyncSession, backfill_id: UUID) -> Backfill:
    backfill = await queries.get_backfill_for_update(session, backfill_id)
    if backfill.state not in ACTIVE_STATES:
        raise _ended(backfill)
    return backfill


def _ended(backfill: Backfill) -> BackfillEnded:
    return BackfillEnded(f"Backfill {backfill.id} has already ended: it is {backfill.state}.")
