"""Pauses of schedules whose run has failed."""

from datetime import date, timedelta

import pytest
from sqlmodel import select

from daybook_domain.runs import claims, retries
from daybook_domain.runs.models import ReportRun, RunState
from daybook_domain.schedules.failure_pauses import pause_after_failure
from daybook_domain.schedules.service import ResumeMode
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import create_pending_run
from tests.support.factories.schedules import (
    MIDNIGHT,
    create_schedule,
    get_schedule,
    materialize_due_fires,
    resume_schedule,
)

pytestmark = pytest.mark.usefixtures("no_runs")

HOUR = timedelta(hours=1)


async def claim_pending_run(sessions: Sessions) -> ReportRun:
    async with sessions.begin() as session:
        run = (await session.exec(select(ReportRun).where(ReportRun.state == "pending"))).one()
        run.state = RunState.QUEUED
        await session.flush()
        claimed = await claims.claim_next(session, run.id, worker="w1", now=MIDNIGHT, lease=HOUR)
    assert claimed is not None
    return claimed


@pytest.mark.parametrize("run_of", ["the schedule", "a request that it joined"])
async def test_a_schedule_is_paused_when_its_run_fails(sessions: Sessions, run_of: str) -> None:
    added = await create_schedule(sessions, pause_on_failure=True)
    unaffected = await create_schedule(sessions, "unaffected")
    if run_of != "the schedule":
        await create_pending_run(sessions, day=date(2026, 3, 1))
    await materialize_due_fires(sessions, now=MIDNIGHT)
    run = await claim_pending_run(sessions)

    async with sessions.begin() as session:
        failed = await retries.record_failure(
            session,
            run.id,
            fence=run.fence,
            error_code="broken",
            error_detail="",
            retryable=False,
            now=MIDNIGHT,
        )
        assert failed is not None
        await pause_after_failure(session, failed, now=MIDNIGHT)

    paused = await get_schedule(sessions, "added")
    assert not paused.enabled
    assert paused.note == f"paused automatically: run {run.id} of 2026-03-01 failed"
    assert (await get_schedule(sessions, unaffected.name)).enabled
    await resume_schedule(sessions, added, mode=ResumeMode.FROM_NOW, now=MIDNIGHT)
