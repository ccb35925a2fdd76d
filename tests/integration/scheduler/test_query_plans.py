"""Query plans of the statements that find due rows, with 10,000 schedules and a large history.

The statements of a scheduler, with the planner settings of its transactions, and of a worker are
recorded, rolled back and explained: also with statistics from before the rows became due, since
fires become due all together.
"""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs import claims
from daybook_domain.schedules.materialization import materialize
from daybook_platform.postgres.engine import create_engine, create_sessions
from daybook_scheduler.transactions import TransactionFactory
from tests.support.clock import sample_zones
from tests.support.factories.runs import claim_due_runs
from tests.support.postgres import migrated_database
from tests.support.query_plans import DatabaseWork, QueryPlan, explain, recorded_statements

SCHEDULES, ZONES, NIGHTS = 10_000, 40, 10
FEW_DUE, LIMIT = 20, 500
NOW = datetime(2026, 3, 2, tzinfo=UTC)

INSERT_SCHEDULES = """
INSERT INTO schedules (name, cron, timezone, report_offset_days, enabled, catchup, catchup_window,
    overlap, next_fire_at, origin)
SELECT 's' || k, '0 0 * * *', (CAST(:zones AS text[]))[1 + k % :count], -1, true, 'all',
    '7 days', 'buffer_one', CAST(:now AS timestamptz) + interval '1 hour', 'api'
FROM generate_series(0, CAST(:schedules AS int) - 1) AS k
"""
INSERT_HISTORY = """
INSERT INTO report_runs (id, report_date, trigger, schedule_id, scheduled_for, state, priority,
    attempt, max_attempts, available_at, queued_at, started_at, finished_at, fence)
SELECT gen_random_uuid(), CAST(at AS date) - 1, 'schedule', s.id, at, 'succeeded', 0,
    1, 5, at, at, at, at, 1
FROM schedules AS s, generate_series(1, CAST(:nights AS int)) AS night,
    LATERAL (SELECT CAST(:now AS timestamptz) - night * interval '1 day' AS at) AS fire
"""
MAKE_SCHEDULES_DUE = """
UPDATE schedules SET next_fire_at = CAST(:now AS timestamptz) - interval '1 second'
WHERE id IN (SELECT id FROM schedules ORDER BY id LIMIT :due)
"""
# Each schedule has a pending run: some are due now, and the others in an hour.
INSERT_RUNS = """
INSERT INTO report_runs (id, report_date, trigger, schedule_id, scheduled_for, state, priority,
    attempt, max_attempts, available_at, fence)
SELECT gen_random_uuid(), date '2000-01-01' + CAST(nth AS int), 'schedule', id, :now, 'pending', 0,
    0, 5, CAST(:now AS timestamptz) + CASE WHEN nth > :due THEN interval '1 hour' ELSE '0' END, 0
FROM (SELECT id, row_number() OVER (ORDER BY id) AS nth FROM schedules) AS s
"""
QUEUE_RUNS = """
UPDATE report_runs SET state = 'queued', queued_at = :now, lease_until = :now
WHERE state = 'pending'
"""
SELECT_ONE_RUN = "SELECT id FROM report_runs WHERE report_date = '2010-01-01' AND state = 'queued'"


@pytest.fixture(scope="module")
async def large_database(postgres_server_url: str) -> AsyncIterator[AsyncEngine]:
    """Return an engine on a database with 10,000 schedules and a history of runs."""
    async with migrated_database(postgres_server_url, name=f"daybook_plans_{os.getpid()}") as url:
        engine = create_engine(url, application="tests")
        async with engine.begin() as connection:
            await connection.execute(
                text(INSERT_SCHEDULES),
                {
                    "zones": sample_zones(ZONES),
                    "count": ZONES,
                    "schedules": SCHEDULES,
                    "now": NOW,
                },
            )
            await connection.execute(text(INSERT_HISTORY), {"nights": NIGHTS, "now": NOW})
            await connection.execute(text("ANALYZE"))
            for table in ("schedules", "report_runs"):
                # Autovacuum would hold the lock that the ANALYZE of a test waits for.
                await connection.execute(
                    text(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
                )
        yield engine
        await engine.dispose()


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "outdated statistics"])
@pytest.mark.parametrize("due", [FEW_DUE, SCHEDULES])
async def test_due_schedules_are_found_by_index(
    large_database: AsyncEngine, *, due: int, analyzed: bool
) -> None:
    work = partial(materialize, now=NOW, limit=LIMIT)
    plans = await explain_statements(
        large_database, work, arrange=MAKE_SCHEDULES_DUE, due=due, analyzed=analyzed
    )

    first = plans[0]
    assert first.rows == min(due, LIMIT)
    assert first.indexes == {"ix_schedules_due"}
    assert first.pages < 1.2 * first.rows + 20
    for plan in plans:
        assert plan.sequential_scans == set()
        assert plan.pages < 100 * max(plan.rows, 1), plan.statement


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "outdated statistics"])
@pytest.mark.parametrize("due", [FEW_DUE, SCHEDULES])
async def test_runs_to_dispatch_are_found_by_index(
    large_database: AsyncEngine, *, due: int, analyzed: bool
) -> None:
    work = partial(claim_due_runs, now=NOW, lease=timedelta(seconds=30), limit=LIMIT)
    (plan,) = await explain_statements(
        large_database, work, arrange=INSERT_RUNS, due=due, analyzed=analyzed
    )

    assert plan.rows == min(due, LIMIT)
    # One finds due runs, and one finds earlier runs that have to end first.
    assert plan.indexes >= {"ix_report_runs_dispatchable", "ix_report_runs_open"}
    assert plan.sequential_scans == set()
    assert plan.pages < 60 * plan.rows


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "outdated statistics"])
async def test_queued_runs_are_found_by_index(
    large_database: AsyncEngine, *, analyzed: bool
) -> None:
    async with create_sessions(large_database)() as session:
        await session.execute(text(INSERT_RUNS), {"now": NOW, "due": SCHEDULES})
        await session.execute(text(QUEUE_RUNS), {"now": NOW})
        if analyzed:
            await session.execute(text("ANALYZE report_runs"))
        some = (await session.execute(text(SELECT_ONE_RUN))).scalar_one()
        before = await session.begin_nested()
        with recorded_statements(large_database) as sent:
            await claims.claim_next(session, some, worker="w", now=NOW, lease=timedelta(seconds=30))
        await before.rollback()
        plans = [await explain(session, statement) for statement in sent]
        await session.rollback()

    assert [plan.rows for plan in plans] == [1, 0, 1]
    for plan in plans:
        assert plan.sequential_scans == set()
        assert plan.pages < 100, plan.statement


async def explain_statements(
    engine: AsyncEngine, work: DatabaseWork, *, arrange: str, due: int, analyzed: bool
) -> list[QueryPlan]:
    """Execute and roll back some of the scheduler's work; return the plan of each statement."""
    async with TransactionFactory(create_sessions(engine)).transaction() as session:
        await session.execute(text(arrange), {"now": NOW, "due": due})
        if analyzed:
            await session.execute(text("ANALYZE schedules, report_runs"))
        before = await session.begin_nested()
        with recorded_statements(engine) as sent:
            await work(session)
        await before.rollback()
        plans = [await explain(session, statement) for statement in sent]
        await session.rollback()
    return plans
