"""The checker finds what is wrong, and nothing where nothing is."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select

from daybook_domain.runs.models import ReportRun, RunState
from daybook_domain.schedules import retention
from daybook_domain.schedules.audit import Finding, find_problems, get_audit_start
from daybook_platform.postgres.engine import Sessions
from tests.support.backfills import seal
from tests.support.runs import pending
from tests.support.schedules import DAY, EARLIER, MIDNIGHT, add, change, define, materialise

pytestmark = pytest.mark.usefixtures("no_runs")

SOON = MIDNIGHT + 2 * DAY + timedelta(minutes=5)


async def findings(sessions: Sessions, *, now: datetime = SOON) -> Sequence[Finding]:
    async with sessions() as session:
        since = await get_audit_start(session, asked=EARLIER - DAY)
        return await find_problems(session, since=since, now=now)


async def test_a_ledger_of_many_outcomes_is_as_it_should_be(sessions: Sessions) -> None:
    await define(sessions)
    await add(sessions, cron="0 * * * *", timezone="Australia/Lord_Howe", catchup_window=DAY)
    await add(sessions, "leap", cron="0 0 29 2 *")
    await materialise(sessions, now=SOON)

    assert await findings(sessions) == []


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (
            "DELETE FROM report_runs WHERE scheduled_for = '2026-03-03 00:00Z'",
            "the fire of 2026-03-03T00:00:00Z is not in the ledger",
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
            "the next fire is set to 2026-03-06 00:00:00+00:00, and is due at"
            " 2026-03-05 00:00:00+00:00",
        ),
        ("UPDATE schedules SET error = 'broken'", "cannot fire: broken"),
        (
            "UPDATE report_runs SET state = 'skipped', finished_at = '2026-03-04 00:00Z'",
            "has become no work, and does not say why",
        ),
        (
            "UPDATE report_runs SET state = 'skipped', cause = 'joined', reason = 'joined',"
            " joined_run_id = gen_random_uuid(), finished_at = '2026-03-04 00:00Z'",
            "has joined a run that is not there",
        ),
        (
            "UPDATE report_runs SET state = 'skipped', cause = 'joined', reason = 'joined',"
            " joined_run_id = (SELECT id FROM report_runs WHERE report_date = '2026-03-01'),"
            " finished_at = '2026-03-03 00:00Z'",
            "has joined a run that was cancelled, or does no work itself",
        ),
        (
            "UPDATE report_runs SET state = 'cancelled' WHERE report_date <> '2026-03-03'",
            "was not sent, although nothing is before it",
        ),
        (
            "UPDATE report_runs SET state = 'running', lease_until = '2026-03-03 00:00Z'",
            "is held by nobody, and was not taken back",
        ),
        (
            "UPDATE report_runs SET state = 'succeeded', finished_at = '2026-03-04 00:00Z'",
            "has succeeded, and its day has no report",
        ),
    ],
)
async def test_what_is_wrong_is_found(
    sessions: Sessions, engine: AsyncEngine, harm: str, problem: str
) -> None:
    await define(sessions)
    await materialise(sessions, now=SOON)
    async with engine.begin() as connection:
        await connection.execute(text(harm))

    found = await findings(sessions, now=SOON + timedelta(minutes=10))

    assert problem in {finding.problem for finding in found}


@pytest.mark.parametrize(
    ("harm", "problem"),
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
            "has more than one run that waits",
        ),
    ],
)
async def test_what_the_schema_forbids_is_found_too(
    sessions: Sessions, harm: Sequence[str], problem: str
) -> None:
    await define(sessions)
    await materialise(sessions, now=SOON)
    async with sessions() as session:
        for statement in harm:
            await session.execute(text(statement))

        found = await find_problems(session, since=EARLIER - DAY, now=SOON)

        await session.rollback()
    assert problem in {finding.problem for finding in found}


async def test_fires_that_no_scheduler_records_are_found(sessions: Sessions) -> None:
    await define(sessions)

    found = await findings(sessions)

    assert [finding.problem for finding in found] == [
        "the fire of 2026-03-02T00:00:00Z is due, and no scheduler has recorded it"
    ]


async def forget(sessions: Sessions, *, before: datetime, limit: int = 100) -> int:
    async with sessions.begin() as session:
        return await retention.prune(session, before=before, limit=limit)


async def let_it_have_been_then(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        for run in (await session.exec(select(ReportRun))).all():
            if run.scheduled_for is not None:
                run.state, run.finished_at = RunState.SUCCEEDED, run.scheduled_for
                await seal(session, run.report_date, now=run.scheduled_for)


@pytest.mark.parametrize("limit", [1, 5, 100])
async def test_what_was_forgotten_is_not_missed(
    sessions: Sessions, engine: AsyncEngine, limit: int
) -> None:
    await define(sessions)
    await add(sessions, "seldom", cron="0 0 1 * *", catchup_window=DAY)
    await change(sessions, catchup_window=DAY)
    now = MIDNIGHT + 60 * DAY + timedelta(minutes=5)
    await materialise(sessions, now=now)
    await let_it_have_been_then(sessions)
    # Readers still see what this one made, so it is not forgotten with those about it.
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "UPDATE report_days SET last_run_id = (SELECT id FROM report_runs"
                " WHERE scheduled_for = '2026-03-05 00:00Z') WHERE report_date = '2026-03-04'"
            )
        )

    assert await forget(sessions, before=MIDNIGHT + 40 * DAY, limit=limit) == min(limit, 39)

    assert await findings(sessions, now=now) == []
    async with sessions() as session:
        since = await get_audit_start(session, asked=EARLIER)
        assert await get_audit_start(session, asked=now - DAY) == now - DAY
    assert since < MIDNIGHT + 40 * DAY
    async with engine.begin() as connection:
        await connection.execute(
            text("DELETE FROM report_runs WHERE scheduled_for = '2026-05-01 00:00Z'")
        )
    assert {finding.subject for finding in await findings(sessions, now=now)} == {
        "schedule daily",
        "schedule seldom",
    }


async def test_a_fire_may_be_remembered_for_longer_than_the_run_that_it_joined(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    await define(sessions)
    work = await pending(sessions)
    await materialise(sessions, now=MIDNIGHT)
    ended = {"id": work.id, "at": MIDNIGHT + timedelta(minutes=1)}
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE report_runs SET state = 'failed', finished_at = :at WHERE id = :id"),
            ended,
        )

    assert await forget(sessions, before=SOON) == 1

    assert await findings(sessions, now=MIDNIGHT + timedelta(minutes=5)) == []
