"""A fire that joins the run of a backfill at the moment of its cancellation is not lost."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.backfills import service
from daybook_domain.runs import cancellation, fire_ledger
from daybook_domain.runs.fire_ledger import Fire
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_domain.schedules.audit import find_problems
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.runs.fires import add_schedule
from tests.integration.domain.runs.operations import SHORT_LOCK_TIMEOUT
from tests.support.factories.backfills import NOW, advance_backfills, march, request_backfill
from tests.support.factories.runs import get_run, list_all_runs, request_run
from tests.support.postgres import wait_for_blocked_transaction

pytestmark = pytest.mark.usefixtures("no_runs")

DAY = march(1)
LOCK = 4711
"""An advisory lock on which a fire waits before it is recorded as joined."""


@asynccontextmanager
async def blocked_joins(engine: AsyncEngine) -> AsyncIterator[None]:
    """Block every fire that joins a run, after it has found the run, until the block ends."""
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION block_join() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                f" PERFORM pg_advisory_xact_lock({LOCK}); RETURN NEW; END $$"
            )
        )
        await connection.execute(
            text(
                "CREATE TRIGGER block_join BEFORE INSERT ON report_runs FOR EACH ROW"
                " WHEN (NEW.cause = 'joined') EXECUTE FUNCTION block_join()"
            )
        )
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            yield
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("DROP FUNCTION block_join CASCADE"))


async def record_fire(sessions: Sessions, schedule_id: int) -> None:
    async with sessions.begin() as session:
        await fire_ledger.record(session, [Fire(schedule_id, NOW, DAY, NOW)], now=NOW)


async def restart(sessions: Sessions) -> Sequence[ReportRun]:
    """Do what the scheduler does for joined fires."""
    async with sessions.begin() as session:
        await session.execute(SHORT_LOCK_TIMEOUT)
        within = timedelta(hours=1)
        restarted = await cancellation.restart_joined_fires(
            session, now=NOW, within=within, limit=10
        )
        await fire_ledger.cancel_joined_fires(session, now=NOW, within=within)
        return restarted


async def find_fire(sessions: Sessions) -> ReportRun:
    (fire,) = [run for run in await list_all_runs(sessions) if run.schedule_id is not None]
    return fire


async def lose_fire(engine: AsyncEngine, sessions: Sessions, *, by_user: bool = False) -> None:
    """Let a fire join the run of a backfill while that is being cancelled."""
    schedule_id = await add_schedule(sessions)
    requested = await request_backfill(sessions, DAY, DAY)
    await advance_backfills(sessions)
    (run,) = await list_all_runs(sessions)
    async with blocked_joins(engine):
        firing = asyncio.create_task(record_fire(sessions, schedule_id))
        await wait_for_blocked_transaction(engine)
        async with sessions.begin() as session:
            if by_user:
                await cancellation.cancel(session, run.id, now=NOW)
            else:
                await service.cancel(session, requested.backfill.id, now=NOW)
    await firing
    fire = await find_fire(sessions)
    assert (fire.state, fire.joined_run_id) == (RunState.SKIPPED, run.id)
    assert (await get_run(sessions, run.id)).state is RunState.CANCELLED


async def test_a_fire_that_joins_a_run_while_its_backfill_is_cancelled_gets_its_own_run(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await lose_fire(engine, sessions)

    restarted = await restart(sessions)

    fire = await find_fire(sessions)
    assert [run.id for run in restarted] == [fire.id]
    assert (fire.state, fire.cause, fire.joined_run_id) == (RunState.PENDING, None, None)
    assert (fire.reason, fire.finished_at, fire.available_at) == (None, None, NOW)
    assert await restart(sessions) == []


async def test_such_a_fire_joins_another_run_that_waits_for_its_date(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await lose_fire(engine, sessions)
    async with sessions.begin() as session:
        other = await request_run(session, day=DAY, now=NOW)

    await restart(sessions)

    fire = await find_fire(sessions)
    assert (fire.state, fire.joined_run_id) == (RunState.SKIPPED, other.run.id)


async def test_a_fire_that_cannot_be_restarted_now_is_restarted_later(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await lose_fire(engine, sessions)
    async with sessions() as locking_session:
        await request_run(locking_session, day=DAY, now=NOW)
        assert await restart(sessions) == []
        assert (await find_fire(sessions)).state is RunState.SKIPPED
        await locking_session.rollback()

    assert len(await restart(sessions)) == 1


async def test_cancelling_another_run_does_not_cancel_such_a_fire(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await lose_fire(engine, sessions)
    async with sessions.begin() as session:
        other = await request_run(session, day=date(2026, 2, 1), now=NOW)
        await cancellation.cancel(session, other.run.id, now=NOW)

    await restart(sessions)

    assert (await find_fire(sessions)).state is RunState.PENDING


async def test_a_fire_that_joins_a_run_while_a_user_cancels_it_is_cancelled(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await lose_fire(engine, sessions, by_user=True)

    assert await restart(sessions) == []
    assert (await find_fire(sessions)).state is RunState.CANCELLED


async def test_a_run_that_a_fire_has_joined_survives_the_cancellation_of_its_backfill(
    sessions: Sessions,
) -> None:
    requested = await request_backfill(sessions, DAY, DAY)
    await advance_backfills(sessions)
    await record_fire(sessions, await add_schedule(sessions))

    async with sessions.begin() as session:
        await service.cancel(session, requested.backfill.id, now=NOW)

    (run,) = [run for run in await list_all_runs(sessions) if run.trigger is RunTrigger.BACKFILL]
    assert run.state is RunState.PENDING


async def test_the_audit_finds_a_fire_that_was_cancelled_with_its_backfill(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await lose_fire(engine, sessions)
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "UPDATE report_runs SET state = 'cancelled', cause = NULL,"
                " reason = 'the run that it joined was cancelled' WHERE cause = 'joined'"
            )
        )

    async with sessions() as session:
        found = await find_problems(
            session, since=NOW - timedelta(days=1), now=NOW + timedelta(minutes=11)
        )

    fire = await find_fire(sessions)
    assert (f"run {fire.id}", "cancelled with the run of a backfill, which it had joined") in {
        (finding.subject, finding.problem) for finding in found
    }
