"""Retention of runs: old runs are pruned unless they are needed."""

from datetime import timedelta

import pytest
from sqlmodel import select

from daybook_domain.runs.models import ReportRun
from daybook_domain.schedules import retention
from daybook_domain.schedules.models import Catchup
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.runs import claim_run, list_all_runs
from tests.support.factories.schedules import (
    DAY,
    MIDNIGHT,
    create_schedule,
    materialize_due_fires,
    remove_schedule,
)

pytestmark = pytest.mark.usefixtures("no_runs")

HOUR = timedelta(hours=1)


async def test_old_runs_that_are_not_needed_are_pruned_in_batches(
    sessions: Sessions,
) -> None:
    added = await create_schedule(sessions, catchup=Catchup.NONE)
    removed = await create_schedule(
        sessions, "removed", catchup=Catchup.NONE, report_offset_days=-5
    )
    now = MIDNIGHT + 20 * DAY + HOUR
    await materialize_due_fires(sessions, now=now)
    await remove_schedule(sessions, removed)
    # Backdate the runs to their due times.
    async with sessions.begin() as session:
        for run in (await session.exec(select(ReportRun))).all():
            run.finished_at = run.scheduled_for

    pruned = []
    for _ in range(3):
        async with sessions.begin() as session:
            pruned.append(await retention.prune(session, before=MIDNIGHT + 15 * DAY, limit=15))

    remaining = [run for run in await list_all_runs(sessions) if run.schedule_id == added.id]
    # The seven days of the catch-up window are needed, so that no fire is repeated.
    assert [run.scheduled_for for run in remaining] == [MIDNIGHT + k * DAY for k in range(8, 21)]
    assert pruned == [15, 8, 0]


async def test_a_running_run_is_not_pruned(
    sessions: Sessions,
) -> None:
    await claim_run(sessions)

    async with sessions.begin() as session:
        assert await retention.prune(session, before=MIDNIGHT + 900 * DAY, limit=10) == 0
