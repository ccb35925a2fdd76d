"""What has happened to the runs of a database, step by step, whoever did it?

A trigger writes down each change of a run, and another each move of the clock, in the transaction
that makes it: what was rolled back never was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from daybook_platform.postgres.engine import Sessions

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
        -- Until the move is committed, somebody may still read the clock as it was.
        INSERT INTO history.steps (clock) VALUES (clock_timestamp() + interval '1 second');
        RETURN NEW; END $$
    """,
    """
    CREATE TRIGGER history AFTER INSERT OR UPDATE OF state, attempt, fence, lease_until
        ON report_runs FOR EACH ROW EXECUTE FUNCTION history.of_run()
    """,
    """
    CREATE TRIGGER history BEFORE UPDATE
        ON warp.setting FOR EACH ROW EXECUTE FUNCTION history.of_clock()
    """,
)


@dataclass(frozen=True)
class Step:
    """How a run was after a change."""

    run_id: UUID
    state: str
    attempt: int
    fence: int
    lease_until: datetime | None
    clock: datetime
    latest: datetime
    """The furthest to which the clock had come by then, however often it was put back."""


@dataclass(frozen=True)
class History:
    """All steps in order; those of one run are in the order in which they were committed."""

    steps: Sequence[Step]
    latest: datetime
    """The furthest to which the clock has ever come."""


async def keep(sessions: Sessions) -> None:
    """Write down from now on; the clock of the database is a movable one."""
    async with sessions.begin() as session:
        for statement in SCHEMA:
            await session.execute(text(statement))


async def read(sessions: Sessions) -> History:
    """Return what has been written down."""
    statement = text(
        "SELECT run_id, state, attempt, fence, lease_until, clock,"
        " max(clock) OVER (ORDER BY number)"
        " FROM history.steps ORDER BY number"
    )
    async with sessions() as session:
        rows = (await session.execute(statement)).all()
    return History([Step(*row) for row in rows if row.run_id is not None], rows[-1][-1])
