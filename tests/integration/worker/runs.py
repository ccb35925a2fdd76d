"""Runs under test: queued, inspected, and with builds that block or fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import date, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain import clock
from daybook_domain.advisory_locks import REPORT_DATE, date_key
from daybook_domain.reports.business_day import business_day
from daybook_domain.reports.models import ReportDay
from daybook_domain.runs import leases, queries, requests
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import claim_due_runs

DAY = date(2026, 3, 1)


async def queue_run(
    sessions: Sessions, *, day: date = DAY, trigger: RunTrigger = RunTrigger.MANUAL
) -> UUID:
    """Request a run of `day` and claim it for dispatch, and return its id."""
    async with sessions.begin() as session:
        now = await clock.now(session)
        await requests.request(
            session, day=business_day(day, timezone="UTC"), trigger=trigger, now=now
        )
        (run,) = await claim_due_runs(session, now=now, lease=timedelta(minutes=5), limit=1)
        return run.id


async def requeue_run(sessions: Sessions, run_id: UUID) -> None:
    """Dispatch a run that waits for the end of its backoff."""
    available_at = (await get_run(sessions, run_id)).available_at
    async with sessions.begin() as session:
        (run,) = await claim_due_runs(
            session, now=available_at, lease=timedelta(minutes=5), limit=1
        )
    assert run.id == run_id


async def get_run(sessions: Sessions, run_id: UUID) -> ReportRun:
    """Return the run in its current state."""
    async with sessions() as session:
        return await queries.get_run(session, run_id)


async def has_state(sessions: Sessions, run_id: UUID, state: RunState) -> bool:
    """Return whether the run is in `state`."""
    return (await get_run(sessions, run_id)).state is state


async def find_report_day(sessions: Sessions, *, day: date = DAY) -> ReportDay | None:
    """Return the report of `day`; None if it was never built."""
    async with sessions() as session:
        return await session.get(ReportDay, day)


@asynccontextmanager
async def blocked_builds(engine: AsyncEngine, *, day: date = DAY) -> AsyncIterator[None]:
    """Block every build of `day` until the end of the block."""
    async with engine.begin() as connection:
        await connection.execute(
            text("SELECT pg_advisory_xact_lock(:lock_class, :lock_day)"),
            {"lock_class": REPORT_DATE, "lock_day": date_key(day)},
        )
        yield


async def count_blocked_builds(engine: AsyncEngine) -> int:
    """Return the number of builds that wait for the lock of their date."""
    async with engine.connect() as connection:
        waiting = await connection.execute(
            text(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        )
        return int(waiting.scalar_one())


async def has_blocked_builds(engine: AsyncEngine, count: int) -> bool:
    """Return whether exactly `count` builds wait for the lock of their date."""
    return await count_blocked_builds(engine) == count


@asynccontextmanager
async def reaping(sessions: Sessions) -> AsyncIterator[None]:
    """Reap runs whose lease has expired all the time, as a scheduler does."""

    async def reap() -> None:
        while True:
            async with sessions.begin() as session:
                await leases.reap(session, now=await clock.now(session), limit=100)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(reap())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def failing_first_extension(engine: AsyncEngine) -> AsyncIterator[None]:
    """Make the first extension of a lease fail on the server, and all later ones succeed."""
    statements = (
        "CREATE SEQUENCE extensions",
        "CREATE FUNCTION fail_first() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF nextval('extensions') = 1 THEN RAISE EXCEPTION 'simulated failure'; END IF;"
        " RETURN NEW; END $$",
        "CREATE TRIGGER fail_first BEFORE UPDATE ON report_runs FOR EACH ROW"
        " WHEN (NEW.progress LIKE 'running for%') EXECUTE FUNCTION fail_first()",
    )
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    try:
        yield
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("DROP FUNCTION fail_first CASCADE"))
            await connection.execute(text("DROP SEQUENCE extensions"))


@asynccontextmanager
async def failing_builds(engine: AsyncEngine, *, sqlstate: str) -> AsyncIterator[None]:
    """Make every build fail on the server with `sqlstate`."""
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                f" RAISE EXCEPTION 'simulated failure' USING ERRCODE = '{sqlstate}'; END $$"
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
