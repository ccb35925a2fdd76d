"""Retention of runs and removed schedules, in the caller's transaction."""

from datetime import datetime

from sqlalchemy import text
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.schedules.models import LedgerStart

# Two kinds of old rows are still needed: fires within the catch-up window of their schedule, which
# would otherwise be repeated, and the runs that built the current revision of a day.
_PRUNE = text(
    """
    WITH old AS (
        SELECT run.id
        FROM report_runs AS run LEFT JOIN schedules AS s ON s.id = run.schedule_id
        WHERE run.finished_at < :before
            AND (run.scheduled_for IS NULL
                OR run.scheduled_for < least(s.next_fire_at, :before)
                    -- The result would be out of range with a window that no definition can have.
                    - least(s.catchup_window, interval '10 years')
                OR s.deleted_at IS NOT NULL)
            AND NOT EXISTS (SELECT FROM report_days AS day WHERE day.last_run_id = run.id)
        ORDER BY run.finished_at
        LIMIT :limit
        FOR UPDATE OF run SKIP LOCKED
    ),
    pruned AS (
        DELETE FROM report_runs USING old WHERE report_runs.id = old.id
        RETURNING report_runs.finished_at
    ),
    ledger_start AS (
        INSERT INTO ledger_beginnings AS start (is_only, forgotten_through)
        SELECT true, max(finished_at) FROM pruned HAVING count(*) > 0
        ON CONFLICT (is_only) DO UPDATE SET
            forgotten_through = greatest(start.forgotten_through, excluded.forgotten_through)
    )
    SELECT count(*) FROM pruned
    """
)

_PRUNE_REMOVED = text(
    """
    DELETE FROM schedules AS s
    WHERE s.deleted_at < :before
        AND NOT EXISTS (SELECT FROM report_runs AS run WHERE run.schedule_id = s.id)
        -- Still in Redis: without the row, the next sync would create the schedule again.
        AND NOT EXISTS (SELECT FROM taskiq_entries AS entry WHERE entry.schedule_id = s.id)
    """
)


async def prune(session: AsyncSession, *, before: datetime, limit: int) -> int:
    """Delete up to `limit` runs that ended before `before`; return the number of deleted runs.

    Records up to when the ledger has gaps now, for the audit. Deletes removed schedules once the
    ledger has no fire of them.
    """
    pruned = (await session.execute(_PRUNE, {"before": before, "limit": limit})).scalar_one()
    if pruned < limit:
        await session.execute(_PRUNE_REMOVED, {"before": before})
    return int(pruned)


async def get_pruned_through(session: AsyncSession) -> datetime | None:
    """Return the instant after which no ended run was pruned, or None if none ever was.

    A fire is recorded before its run ends, so all fires due after that instant are in the ledger.
    """
    return (await session.exec(select(LedgerStart.pruned_through))).one_or_none()
