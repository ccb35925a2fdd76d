"""How does a test make a run wait for a worker, and keep its build from ending?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain import clock
from daybook_domain.advisory_locks import REPORT_DATE, date_key
from daybook_domain.reports.business_day import business_day
from daybook_domain.reports.models import ReportDay
from daybook_domain.runs import queries, requests
from daybook_domain.runs.models import ReportRun, RunTrigger
from daybook_platform.postgres.engine import Sessions
from tests.support.runs import claim_due

DAY = date(2026, 3, 1)


async def queued_run(
    sessions: Sessions, *, day: date = DAY, trigger: RunTrigger = RunTrigger.MANUAL
) -> UUID:
    """Return a run of `day` that the scheduler would have sent just now."""
    async with sessions.begin() as session:
        now = await clock.now(session)
        await requests.request(
            session, day=business_day(day, timezone="UTC"), trigger=trigger, now=now
        )
        (run,) = await claim_due(session, now=now, lease=timedelta(minutes=5), limit=1)
        return run.id


async def run(sessions: Sessions, run_id: UUID) -> ReportRun:
    """Return the run as it is now."""
    async with sessions() as session:
        return await queries.get_run(session, run_id)


async def built_day(sessions: Sessions, *, day: date = DAY) -> ReportDay | None:
    """Return what is known about `day`, if it was ever built."""
    async with sessions() as session:
        return await session.get(ReportDay, day)


@asynccontextmanager
async def held_up(engine: AsyncEngine, *, day: date = DAY) -> AsyncIterator[None]:
    """Keep every build of `day` waiting."""
    async with engine.begin() as connection:
        await connection.execute(
            text("SELECT pg_advisory_xact_lock(:lock_class, :lock_day)"),
            {"lock_class": REPORT_DATE, "lock_day": date_key(day)},
        )
        yield


async def builds_waiting(engine: AsyncEngine) -> int:
    """Return how many builds wait for the lock of their date."""
    async with engine.connect() as connection:
        waiting = await connection.execute(
            text(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        )
        return int(waiting.scalar_one())


@asynccontextmanager
async def failing(engine: AsyncEngine, *, sqlstate: str) -> AsyncIterator[None]:
    """Let every build fail on the server with `sqlstate`."""
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                f" RAISE EXCEPTION 'no luck' USING ERRCODE = '{sqlstate}'; END $$"
            )
        )
        await connection.execute(
            text(
                "CREATE TRIGGER fail BEFORE INSERT ON report_days"
                " FOR EACH ROW EXECUTE FUNCTION fail()"
            )
        )
    try:
        yield
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("DROP FUNCTION fail CASCADE"))
