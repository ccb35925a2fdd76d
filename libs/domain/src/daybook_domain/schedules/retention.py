"""For how long does the ledger remember? Writes, inside the caller's transaction."""

from datetime import datetime

from sqlalchemy import text
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.schedules.models import LedgerBeginning

# What is still needed stays: a fire within the time that its schedule may make up for, so that it
# cannot be repeated; and the run that made the revision of a day that readers see.
_PRUNE = text(
    """
    WITH old AS (
        SELECT run.id
        FROM report_runs AS run LEFT JOIN schedules AS s ON s.id = run.schedule_id
        WHERE run.finished_at < :before
            AND (run.scheduled_for IS NULL
                OR run.scheduled_for < least(s.next_fire_at, :before) - s.catchup_window
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
    told AS (
        INSERT INTO ledger_beginnings AS beginning (is_only, forgotten_through)
        SELECT true, max(finished_at) FROM pruned HAVING count(*) > 0
        ON CONFLICT (is_only) DO UPDATE SET
            forgotten_through = greatest(beginning.forgotten_through, excluded.forgotten_through)
    )
    SELECT count(*) FROM pruned
    """
)

_PRUNE_REMOVED = text(
    """
    DELETE FROM schedules AS s
    WHERE s.deleted_at < :before
        AND NOT EXISTS (SELECT FROM report_runs AS run WHERE run.schedule_id = s.id)
        -- Removed here, and still in Redis: forgotten, it would come to life again.
        AND NOT EXISTS (SELECT FROM taskiq_entries AS entry WHERE entry.schedule_id = s.id)
    """
)


async def prune(session: AsyncSession, *, before: datetime, limit: int) -> int:
    """Delete up to `limit` runs that ended before that instant; return how many they were.

    Writes down through when the ledger has gaps now, for whoever wants to prove something from it.
    Removed schedules go once the ledger speaks of them no more.
    """
    pruned = (await session.execute(_PRUNE, {"before": before, "limit": limit})).scalar_one()
    if pruned < limit:
        await session.execute(_PRUNE_REMOVED, {"before": before})
    return int(pruned)


async def get_pruned_through(session: AsyncSession) -> datetime | None:
    """Return the instant after which no run that ended was forgotten; None: none ever was.

    A fire is in the ledger before it ends, so each that was due later is there.
    """
    return (await session.exec(select(LedgerBeginning.forgotten_through))).one_or_none()
