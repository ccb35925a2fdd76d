"""Cancellation of runs, and of the fires that joined them."""

from datetime import timedelta
from uuid import UUID

import pytest

from daybook_domain.runs import cancellation, fire_ledger, retries
from daybook_domain.runs.fire_ledger import Fire
from daybook_domain.runs.models import RunState
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.runs.fires import FIRED_AT, add_joined_run, add_schedule
from tests.support.factories.runs import DAY, NOW, create_pending_run, get_run, list_all_runs

pytestmark = pytest.mark.usefixtures("no_runs")

LATER = NOW + timedelta(minutes=10)


async def cancel(sessions: Sessions, run_id: UUID) -> None:
    async with sessions.begin() as session:
        await cancellation.cancel(session, run_id, now=NOW)


async def retry(sessions: Sessions, run_id: UUID) -> None:
    async with sessions.begin() as session:
        await retries.retry(session, run_id, now=NOW)


async def test_a_fire_is_cancelled_with_the_run_that_it_joined(sessions: Sessions) -> None:
    joined_run = await add_joined_run(sessions)

    await cancel(sessions, joined_run.id)

    (fire, _) = await list_all_runs(sessions)
    assert (fire.state, fire.cause, fire.finished_at) == (RunState.CANCELLED, None, NOW)
    assert fire.reason == f"the run that it joined, {joined_run.id}, was cancelled"


async def test_a_cancelled_fire_is_unchanged_when_the_run_that_it_had_joined_joins_another(
    sessions: Sessions,
) -> None:
    first = await add_joined_run(sessions)
    await cancel(sessions, first.id)
    second = await create_pending_run(sessions)

    await retry(sessions, first.id)

    (fire, *_) = await list_all_runs(sessions)
    assert (await get_run(sessions, first.id)).joined_run_id == second.id
    assert (fire.state, fire.joined_run_id) == (RunState.CANCELLED, first.id)


async def test_a_retried_fire_is_a_run_of_its_own(sessions: Sessions) -> None:
    await cancel(sessions, (await add_joined_run(sessions)).id)
    (cancelled, _) = await list_all_runs(sessions)

    await retry(sessions, cancelled.id)

    fire = await get_run(sessions, cancelled.id)
    assert (fire.state, fire.reason, fire.joined_run_id) == (RunState.PENDING, None, None)


async def test_a_fire_that_joins_a_run_during_its_cancellation_is_cancelled_later(
    sessions: Sessions,
) -> None:
    schedule_id = await add_schedule(sessions)
    waiting = await create_pending_run(sessions)
    async with sessions.begin() as joining_session:
        await fire_ledger.record(
            joining_session, [Fire(schedule_id, FIRED_AT, DAY, LATER)], now=NOW
        )
        await cancel(sessions, waiting.id)
    (before, _) = await list_all_runs(sessions)

    async with sessions.begin() as session:
        await fire_ledger.cancel_joined_fires(session, now=LATER, within=timedelta(hours=1))

    (after, _) = await list_all_runs(sessions)
    assert (before.state, after.state) == (RunState.SKIPPED, RunState.CANCELLED)
