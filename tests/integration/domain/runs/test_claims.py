"""Claims of queued runs, also concurrent ones."""

import asyncio
from datetime import date
from uuid import uuid4

import pytest
from sqlalchemy import text

from daybook_domain.runs import claims
from daybook_domain.runs.errors import RunsLocked
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.runs.operations import claim
from tests.support.factories.runs import DAY, LEASE, NOW, claim_due_runs, queue_run, request_run

pytestmark = pytest.mark.usefixtures("no_runs")


async def test_one_of_many_concurrent_deliveries_claims_the_run(sessions: Sessions) -> None:
    run = await queue_run(sessions)

    results = await asyncio.gather(
        *(claim(sessions, run, worker=f"w{k}") for k in range(8)), return_exceptions=True
    )

    (claimed,) = [result for result in results if isinstance(result, ReportRun)]
    assert {type(result) for result in results} <= {ReportRun, RunsLocked, type(None)}
    assert (claimed.state, claimed.attempt, claimed.fence) == (RunState.RUNNING, 1, 1)
    assert claimed.lease_until == NOW + LEASE


async def test_a_message_of_a_backfill_claims_the_nightly_run_first(sessions: Sessions) -> None:
    """In whatever order the messages arrive, no run waits behind a less urgent one."""
    async with sessions.begin() as session:
        for day in (date(2026, 1, 1), date(2026, 1, 2)):
            await request_run(session, day=day, trigger=RunTrigger.BACKFILL)
        less_urgent, least_urgent = await claim_due_runs(session, now=NOW, lease=LEASE, limit=2)
        await request_run(session, day=DAY)
        (urgent,) = await claim_due_runs(session, now=NOW, lease=LEASE, limit=1)

    messages = [least_urgent, less_urgent, urgent]
    claimed = [await claim(sessions, run) for run in messages]

    assert [run and run.id for run in claimed] == [urgent.id, less_urgent.id, least_urgent.id]
    assert await claim(sessions, least_urgent) is None


async def test_the_named_run_is_claimed_when_a_more_urgent_one_is_locked(
    sessions: Sessions,
) -> None:
    async with sessions.begin() as session:
        await request_run(session, day=date(2026, 1, 1), trigger=RunTrigger.BACKFILL)
        await request_run(session, day=DAY)
        urgent, named = await claim_due_runs(session, now=NOW, lease=LEASE, limit=2)
    async with sessions.begin() as locking_session:
        await locking_session.execute(
            text("SELECT 1 FROM report_runs WHERE id = :id FOR UPDATE"), {"id": urgent.id}
        )
        claimed = await claim(sessions, named)

    assert claimed is not None
    assert claimed.id == named.id


@pytest.mark.parametrize("named", ["the locked run", "another run, which is claimed"])
async def test_a_locked_run_is_neither_waited_for_nor_ignored(
    sessions: Sessions, named: str
) -> None:
    """The message of one run may have claimed the other; then this is the last message."""
    claimed_before = await queue_run(sessions)
    await claim(sessions, claimed_before)
    locked = await queue_run(sessions, day=date(2026, 1, 1))
    message = locked if named == "the locked run" else claimed_before
    async with sessions.begin() as locking_session:
        await locking_session.get(ReportRun, locked.id, with_for_update=True)
        async with asyncio.timeout(5):
            with pytest.raises(RunsLocked):
                await claim(sessions, message)
    claimed = await claim(sessions, message)

    assert claimed is not None
    assert claimed.id == locked.id


@pytest.mark.parametrize("state", [state for state in RunState if state != RunState.QUEUED])
async def test_only_a_queued_run_can_be_claimed(sessions: Sessions, state: RunState) -> None:
    run = ReportRun(report_date=DAY, trigger=RunTrigger.MANUAL, available_at=NOW, state=state)
    async with sessions.begin() as session:
        session.add(run)

    assert await claim(sessions, run) is None


async def test_a_run_that_does_not_exist_cannot_be_claimed(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        claimed = await claims.claim_next(session, uuid4(), worker="w1", now=NOW, lease=LEASE)

    assert claimed is None
