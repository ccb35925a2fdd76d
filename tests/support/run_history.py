"""A history of all changes to the runs of a database, recorded by triggers.

One trigger records each change of a run, another each change of the movable clock. Both write in
the transaction that makes the change, so the history contains only committed changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from daybook_platform.postgres.sessions import Sessions

SCHEMA = (
    "CREATE SCHEMA history",
    """
    CREATE TABLE history.steps (
        number bigint GENERATED ALWAYS AS IDENTITY, run_id uuid, state text, attempt integer,
        fence bigint, lease_until timestamptz, clock timestamptz NOT NULL)
    """,
    """
    CREATE FUNCTION history.of_run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO history.steps (run_id, state, attempt, fence, lease_until, clock)
        VALUES (NEW.id, NEW.state, NEW.attempt, NEW.fence, NEW.lease_until, clock_timestamp());
        RETURN NULL; END $$
    """,
    """
    CREATE FUNCTION history.of_clock() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        -- Other transactions read the old clock until this change is committed.
        INSERT INTO history.steps (clock) VALUES (clock_timestamp() + interval '1 second');
        RETURN NEW; END $$
    """,
    """
    CREATE TRIGGER history AFTER INSERT OR UPDATE OF state, attempt, fence, lease_until
        ON report_runs FOR EACH ROW EXECUTE FUNCTION history.of_run()
    """,
    """
    CREATE TRIGGER history BEFORE UPDATE
        ON test_clock.setting FOR EACH ROW EXECUTE FUNCTION history.of_clock()
    """,
)


@dataclass(frozen=True)
class RunStep:
    """The state of a run after a change."""

    run_id: UUID
    state: str
    attempt: int
    fence: int
    lease_until: datetime | None
    clock: datetime
    latest: datetime
    """The latest value of the clock up to this step; the clock may have been put back."""


@dataclass(frozen=True)
class RunHistory:
    """All steps in order; those of one run are in commit order."""

    steps: Sequence[RunStep]
    latest: datetime
    """The latest value that the clock ever had."""


async def record_run_history(sessions: Sessions) -> None:
    """Start to record; the database must have a movable clock."""
    async with sessions.begin() as session:
        for statement in SCHEMA:
            await session.execute(text(statement))


async def read_run_history(sessions: Sessions) -> RunHistory:
    """Return the recorded history."""
    statement = text(
        "SELECT run_id, state, attempt, fence, lease_until, clock,"
        " max(clock) OVER (ORDER BY number)"
        " FROM history.steps ORDER BY number"
    )
    async with sessions() as session:
        rows = (await session.execute(statement)).all()
    return RunHistory([RunStep(*row) for row in rows if row.run_id is not None], rows[-1][-1])
