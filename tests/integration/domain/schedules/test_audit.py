"""The audit finds each kind of problem, and none in a correct ledger."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select

from daybook_domain.reports.business_day import business_day
from daybook_domain.runs.models import ReportRun, RunState
from daybook_domain.schedules import retention
from daybook_domain.schedules.audit import Finding, find_problems, get_audit_start
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.backfills import seal_day
from tests.support.factories.reports import build_report
from tests.support.factories.runs import create_pending_run
from tests.support.factories.schedules import (
    DAY,
    EARLIER,
    MIDNIGHT,
    create_schedule,
    define_daily_schedule,
    materialize_due_fires,
    update_schedule_row,
)
from tests.support.factories.shop import create_order, reset_shop

pytestmark = pytest.mark.usefixtures("no_runs")

SOON = MIDNIGHT + 2 * DAY + timedelta(minutes=5)


async def findings(sessions: Sessions, *, now: datetime = SOON) -> Sequence[Finding]:
    async with sessions() as session:
        since = await get_audit_start(session, requested=EARLIER - DAY)
        return await find_problems(session, since=since, now=now)


async def test_the_audit_finds_no_problem_in_a_ledger_of_many_outcomes(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)
    await create_schedule(
        sessions, cron="0 * * * *", timezone="Australia/Lord_Howe", catchup_window=DAY
    )
    await create_schedule(sessions, "leap", cron="0 0 29 2 *")
    await materialize_due_fires(sessions, now=SOON)

    assert await findings(sessions) == []


@pytest.mark.parametrize(
    ("corruption", "problem"),
    [
        (
            "DELETE FROM report_runs WHERE scheduled_for = '2026-03-03 00:00Z'",
            "the fire of 2026-03-03T00:00:00Z is missing from the ledger",
        ),
        (
            "UPDATE report_runs SET scheduled_for = '2026-03-03 00:01Z'"
            " WHERE scheduled_for = '2026-03-03 00:00Z'",
            "the ledger has a fire of 2026-03-03T00:01:00Z, which was not due",
        ),
        (
            "UPDATE report_runs SET report_date = '2025-03-03'"
            " WHERE scheduled_for = '2026-03-03 00:00Z'",
            "the fire of 2026-03-03T00:00:00Z reports 2025-03-03",
        ),
        (
            "UPDATE schedules SET next_fire_at = '2026-03-06 00:00Z'",
            "the next fire is set to 2026-03-06 00:00:00+00:00, but is due at"
            " 2026-03-05 00:00:00+00:00",
        ),
        ("UPDATE schedules SET error = 'broken'", "cannot fire: broken"),
        (
            "UPDATE report_runs SET state = 'skipped', finished_at = '2026-03-04 00:00Z'",
            "skipped without a recorded reason",
        ),
        (
            "UPDATE report_runs SET state = 'skipped', cause = 'joined', reason = 'joined',"
            " joined_run_id = gen_random_uuid(), finished_at = '2026-03-04 00:00Z'",
            "joined a run that does not exist",
        ),
        (
            "UPDATE report_runs SET state = 'skipped', cause = 'joined', reason = 'joined',"
            " joined_run_id = (SELECT id FROM report_runs WHERE report_date = '2026-03-01'),"
            " finished_at = '2026-03-03 00:00Z'",
            "joined a run that was cancelled, skipped or missed",
        ),
        (
            "UPDATE report_runs SET state = 'cancelled' WHERE report_date <> '2026-03-03'",
            "not dispatched, although no earlier run is active",
        ),
        (
            "UPDATE report_runs SET state = 'running', lease_until = '2026-03-03 00:00Z'",
            "lease expired, and the run was not reaped",
        ),
        (
            "UPDATE report_runs SET state = 'running', lease_until = NULL",
            "lease expired, and the run was not reaped",
        ),
        (
            "UPDATE report_runs SET state = 'succeeded', finished_at = '2026-03-04 00:00Z'",
            "succeeded, but its date has no report",
        ),
    ],
)
async def test_the_audit_finds_corrupted_rows(
    sessions: Sessions, engine: AsyncEngine, corruption: str, problem: str
) -> None:
    await define_daily_schedule(sessions)
    await materialize_due_fires(sessions, now=SOON)
    async with engine.begin() as connection:
        await connection.execute(text(corruption))

    found = await findings(sessions, now=SOON + timedelta(minutes=10))

    assert problem in {finding.problem for finding in found}


@pytest.mark.parametrize(
    ("corruption", "problem"),
    [
        (
            [
                "ALTER TABLE report_runs DROP CONSTRAINT uq_report_runs_schedule_id_scheduled_for",
                "UPDATE report_runs SET scheduled_for = '2026-03-03 00:00Z'"
                " WHERE scheduled_for = '2026-03-04 00:00Z'",
            ],
            "the fire of 2026-03-03T00:00:00Z is in the ledger 2 times",
        ),
        (
            [
                "DROP INDEX uq_report_runs_waiting",
                "UPDATE report_runs SET report_date = '2026-03-02'",
            ],
            "more than one pending run",
        ),
    ],
)
async def test_the_audit_finds_rows_that_the_schema_forbids(
    sessions: Sessions, corruption: Sequence[str], problem: str
) -> None:
    await define_daily_schedule(sessions)
    await materialize_due_fires(sessions, now=SOON)
    async with sessions() as session:
        for statement in corruption:
            await session.execute(text(statement))

        found = await find_problems(session, since=EARLIER - DAY, now=SOON)

        await session.rollback()
    assert problem in {finding.problem for finding in found}


async def test_the_audit_finds_fires_that_no_scheduler_records(sessions: Sessions) -> None:
    await define_daily_schedule(sessions)

    found = await findings(sessions)

    assert [finding.problem for finding in found] == [
        "the fire of 2026-03-02T00:00:00Z is due, and no scheduler has recorded it"
    ]


async def test_the_audit_finds_receipts_that_should_have_expired(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    insert = text(
        "INSERT INTO intake_receipts (consumer, number, digests, created_at)"
        " VALUES (gen_random_uuid(), :number, '{}', :at)"
    )
    async with engine.begin() as connection:
        for number, age in ((1, timedelta(days=1)), (2, timedelta(minutes=1))):
            await connection.execute(insert, {"number": number, "at": SOON - age})

    (finding,) = await findings(sessions)

    assert finding.subject.startswith("receipt of batch 1 of consumer ")
    assert finding.problem.startswith("not expired")


async def prune(sessions: Sessions, *, before: datetime, limit: int = 100) -> int:
    async with sessions.begin() as session:
        return await retention.prune(session, before=before, limit=limit)


async def backdate_runs(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        for run in (await session.exec(select(ReportRun))).all():
            if run.scheduled_for is not None:
                run.state, run.finished_at = RunState.SUCCEEDED, run.scheduled_for
                await seal_day(session, run.report_date, now=run.scheduled_for)


@pytest.mark.parametrize("limit", [1, 5, 100])
async def test_the_audit_does_not_report_pruned_runs(
    sessions: Sessions, engine: AsyncEngine, limit: int
) -> None:
    await define_daily_schedule(sessions)
    await create_schedule(sessions, "monthly", cron="0 0 1 * *", catchup_window=DAY)
    await update_schedule_row(sessions, catchup_window=DAY)
    now = MIDNIGHT + 60 * DAY + timedelta(minutes=5)
    await materialize_due_fires(sessions, now=now)
    await backdate_runs(sessions)
    # This run built a current revision, so it is not pruned with its neighbours.
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "UPDATE report_days SET last_run_id = (SELECT id FROM report_runs"
                " WHERE scheduled_for = '2026-03-05 00:00Z') WHERE report_date = '2026-03-04'"
            )
        )

    assert await prune(sessions, before=MIDNIGHT + 40 * DAY, limit=limit) == min(limit, 39)

    assert await findings(sessions, now=now) == []
    async with sessions() as session:
        since = await get_audit_start(session, requested=EARLIER)
        assert await get_audit_start(session, requested=now - DAY) == now - DAY
    assert since < MIDNIGHT + 40 * DAY
    async with engine.begin() as connection:
        await connection.execute(
            text("DELETE FROM report_runs WHERE scheduled_for = '2026-05-01 00:00Z'")
        )
    assert {finding.subject for finding in await findings(sessions, now=now)} == {
        "schedule daily",
        "schedule monthly",
    }


async def test_the_audit_accepts_a_fire_whose_joined_run_was_pruned(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    await define_daily_schedule(sessions)
    work = await create_pending_run(sessions)
    await materialize_due_fires(sessions, now=MIDNIGHT)
    ended = {"id": work.id, "at": MIDNIGHT + timedelta(minutes=1)}
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE report_runs SET state = 'failed', finished_at = :at WHERE id = :id"),
            ended,
        )

    assert await prune(sessions, before=SOON) == 1

    assert await findings(sessions, now=MIDNIGHT + timedelta(minutes=5)) == []


async def test_the_audit_finds_a_fire_that_no_scheduler_has_recorded_for_two_minutes(
    sessions: Sessions,
) -> None:
    await define_daily_schedule(sessions)

    on_time = await findings(sessions, now=MIDNIGHT + timedelta(minutes=1))
    overdue = await findings(sessions, now=MIDNIGHT + timedelta(minutes=2))

    assert on_time == []
    problem = "the fire of 2026-03-02T00:00:00Z is due, and no scheduler has recorded it"
    assert overdue == [Finding("schedule daily", problem)]


async def test_a_schedule_that_cannot_be_checked_is_a_finding_and_the_others_are_checked(
    sessions: Sessions,
) -> None:
    await create_schedule(sessions, "broken")
    await update_schedule_row(sessions, "broken", timezone="Mars/Olympus")
    await define_daily_schedule(sessions)

    found = {finding.subject: finding.problem for finding in await findings(sessions, now=SOON)}

    assert "Mars/Olympus" in found["schedule broken"]
    assert "no scheduler has recorded it" in found["schedule daily"]


async def test_the_audit_finds_a_date_that_a_change_of_the_settings_skipped(
    sessions: Sessions,
) -> None:
    await define_daily_schedule(sessions, cron="0 2 * * *")
    await materialize_due_fires(sessions, now=MIDNIGHT + timedelta(hours=3))
    # As the previous release did: the next fire of the new cron, 1:00, is tomorrow's.
    deployed_at = MIDNIGHT + DAY + timedelta(hours=1, minutes=30)
    await update_schedule_row(
        sessions,
        cron="0 1 * * *",
        defined_at=deployed_at,
        next_fire_at=MIDNIGHT + 2 * DAY + timedelta(hours=1),
    )

    found = await findings(sessions, now=deployed_at)

    assert Finding("schedule daily", "the date 2026-03-02 has no fire") in found


@pytest.fixture
async def built_days(engine: AsyncEngine, no_runs: None) -> None:
    """Build two days in UTC, each with an order early and one late on it."""
    await reset_shop(engine)
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO business_timezone (is_only, timezone) VALUES (true, 'UTC')")
        )
        for n in range(2):
            for hour in (2, 22):
                await create_order(
                    connection, created_at=MIDNIGHT + n * DAY + timedelta(hours=hour)
                )
    for n in range(2):
        await build_report(engine, business_day((MIDNIGHT + n * DAY).date(), timezone="UTC"))


@pytest.mark.usefixtures("built_days")
async def test_the_audit_finds_no_problem_in_days_of_one_zone(sessions: Sessions) -> None:
    assert await findings(sessions) == []


@pytest.mark.usefixtures("built_days")
@pytest.mark.parametrize(
    ("corruption", "expected"),
    [
        (
            "UPDATE report_days SET timezone = 'Asia/Tokyo' WHERE report_date = '2026-03-02'",
            Finding(
                "date 2026-03-02 (Asia/Tokyo)",
                "was built in another zone than that of business days",
            ),
        ),
        (
            # To New York: the hours at the seam are in no report.
            "DELETE FROM reports WHERE report_at = '2026-03-02' AND order_id = 1",
            Finding("order 1 of 2026-03-02", "is not in the report of its date"),
        ),
        (
            # To Tokyo: they are in two.
            "INSERT INTO reports (report_at, order_id, count_product) VALUES ('2026-03-03', 2, 1)",
            Finding("order 2", "is in the reports of two dates"),
        ),
        (
            "UPDATE reports SET report_at = '2026-03-03' WHERE order_id = 2",
            Finding("order 2 of 2026-03-03", "is in the report of another date"),
        ),
    ],
)
async def test_the_audit_finds_days_and_orders_at_the_seam_of_two_zones(
    sessions: Sessions, engine: AsyncEngine, corruption: str, expected: Finding
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(corruption))

    assert expected in await findings(sessions)


@pytest.mark.usefixtures("built_days")
async def test_the_audit_does_not_report_a_day_that_is_about_to_be_rebuilt(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM reports WHERE report_at = '2026-03-02'"))
        await connection.execute(text("UPDATE report_days SET timezone = 'Asia/Tokyo'"))
    for n in range(2):
        await create_pending_run(sessions, day=(MIDNIGHT + n * DAY).date(), now=SOON)

    problems = {finding.problem for finding in await findings(sessions)}

    assert not problems & {
        "is not in the report of its date",
        "was built in another zone than that of business days",
    }
