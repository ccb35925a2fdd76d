"""The ledger of fires: each due fire is recorded once, alone or among a thousand."""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs import claims, leases
from daybook_domain.runs.errors import RunsLocked
from daybook_domain.runs.fire_ledger import Fire
from daybook_domain.runs.models import RunState, RunTrigger, SkipCause
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.runs.fires import (
    FIRED_AT,
    add_joined_run,
    add_schedule,
    record_fire,
    record_fires,
)
from tests.integration.domain.runs.operations import SECOND
from tests.support.factories.runs import (
    DAY,
    LEASE,
    NOW,
    claim_due_runs,
    claim_run,
    create_pending_run,
    get_run,
    list_all_runs,
    request_run,
)
from tests.support.postgres import wait_for_blocked_transaction

pytestmark = pytest.mark.usefixtures("no_runs")

LATER = NOW + timedelta(minutes=10)


async def claim_if_unlocked(sessions: Sessions, run_id: UUID) -> None:
    with suppress(RunsLocked):
        async with sessions.begin() as session:
            await claims.claim_next(session, run_id, worker="w1", now=NOW, lease=LEASE)


async def test_a_fire_is_recorded_as_a_run_once(sessions: Sessions) -> None:
    daily = await add_schedule(sessions)

    results = [await record_fire(sessions, daily) for _ in range(3)]

    (run,) = await list_all_runs(sessions)
    assert results == ["run", "recorded before", "recorded before"]
    assert (run.trigger, run.scheduled_for, run.report_date) == (
        RunTrigger.SCHEDULE,
        FIRED_AT,
        DAY,
    )


async def test_a_fire_that_is_recorded_concurrently_is_one_run(sessions: Sessions) -> None:
    daily = await add_schedule(sessions)

    results = await asyncio.gather(*(record_fire(sessions, daily) for _ in range(8)))

    assert sorted(results) == ["recorded before"] * 7 + ["run"]
    assert len(await list_all_runs(sessions)) == 1


async def test_a_fire_that_joins_the_waiting_run_is_recorded_once(sessions: Sessions) -> None:
    daily = await add_schedule(sessions)
    waiting = await create_pending_run(sessions)

    results = [await record_fire(sessions, daily) for _ in range(2)]

    (fire, _) = await list_all_runs(sessions)
    assert results == ["joined", "recorded before"]
    assert (fire.scheduled_for, fire.joined_run_id) == (FIRED_AT, waiting.id)
    assert fire.reason == f"joined: run {waiting.id} was waiting for 2026-03-01 already"


async def test_a_fire_joins_a_request_that_is_being_committed(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    daily = await add_schedule(sessions)
    async with sessions.begin() as session:
        requested = await request_run(session)
        firing = asyncio.create_task(record_fire(sessions, daily))
        await wait_for_blocked_transaction(engine)

    assert await firing == "joined"
    (fire, _) = await list_all_runs(sessions)
    assert fire.joined_run_id == requested.run.id


async def test_a_fire_does_not_wait_for_the_lock_of_the_waiting_run(sessions: Sessions) -> None:
    daily = await add_schedule(sessions)
    await create_pending_run(sessions)
    async with sessions.begin() as locking_session:
        await request_run(locking_session)
        async with asyncio.timeout(5):
            assert await record_fire(sessions, daily) == "joined"


async def test_a_fire_does_not_join_a_running_run(sessions: Sessions) -> None:
    daily = await add_schedule(sessions)
    await claim_run(sessions)

    assert await record_fire(sessions, daily) == "run"


async def test_concurrent_fires_requests_and_claims_lose_nothing(sessions: Sessions) -> None:
    daily = await add_schedule(sessions)

    async def dispatch_and_claim() -> None:
        async with sessions.begin() as session:
            due = await claim_due_runs(session, now=LATER, lease=LEASE, limit=5)
        for run in due:
            await claim_if_unlocked(sessions, run.id)

    async def request_report() -> None:
        async with sessions.begin() as session:
            await request_run(session)

    await asyncio.gather(
        *(record_fire(sessions, daily, at=FIRED_AT + k * SECOND) for k in range(12)),
        *(dispatch_and_claim() for _ in range(12)),
        *(request_report() for _ in range(6)),
    )

    runs = await list_all_runs(sessions)
    fires = [run for run in runs if run.schedule_id == daily]
    assert [fire.scheduled_for for fire in fires] == [FIRED_AT + k * SECOND for k in range(12)]
    run_ids = {run.id for run in runs}
    assert all(fire.joined_run_id in run_ids for fire in fires if fire.state == RunState.SKIPPED)
    assert sum(run.state in {RunState.PENDING, RunState.QUEUED} for run in runs) <= 1


async def test_a_skipped_fire_is_recorded_once_with_its_reason(sessions: Sessions) -> None:
    daily = await add_schedule(sessions)
    missed = Fire(daily, FIRED_AT, DAY, FIRED_AT, cause=SkipCause.CATCHUP, reason="late")

    counts = [await record_fires(sessions, missed) for _ in range(2)]

    (run,) = await list_all_runs(sessions)
    assert counts == [Counter({SkipCause.CATCHUP: 1}), Counter()]
    assert (run.state, run.cause) == (RunState.MISSED, SkipCause.CATCHUP)
    assert (run.reason, run.finished_at) == ("late", NOW)


async def test_a_thousand_fires_of_ten_dates_are_recorded_as_one_run_a_date(
    sessions: Sessions,
) -> None:
    daily = await add_schedule(sessions)
    waiting = await create_pending_run(sessions, day=DAY)
    fires = [
        Fire(daily, FIRED_AT + k * SECOND, DAY + timedelta(days=k % 10), FIRED_AT + k * SECOND)
        for k in range(1000)
    ]

    counts = await record_fires(sessions, *fires)

    runs = [run for run in await list_all_runs(sessions) if run.schedule_id == daily]
    assert counts == Counter({None: 9, SkipCause.JOINED: 991})
    assert [run.scheduled_for for run in runs] == [fire.scheduled_for for fire in fires]
    run_by_date = {run.report_date: run.id for run in runs if run.state == RunState.PENDING}
    run_by_date[DAY] = waiting.id
    assert all(run.joined_run_id == run_by_date[run.report_date] for run in runs if run.cause)


async def test_a_run_is_available_no_later_than_a_fire_that_joins_it(sessions: Sessions) -> None:
    delayed, punctual = await add_schedule(sessions), await add_schedule(sessions, "punctual")
    await record_fires(sessions, Fire(delayed, FIRED_AT, DAY, FIRED_AT + timedelta(hours=1)))

    await record_fires(sessions, Fire(punctual, FIRED_AT, DAY, FIRED_AT))

    runs = await list_all_runs(sessions)
    assert {run.available_at for run in runs if run.state == RunState.PENDING} == {FIRED_AT}


async def test_a_fire_with_jitter_does_not_delay_the_run_that_it_joins(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        requested = await request_run(session, trigger=RunTrigger.BACKFILL)
    delayed = Fire(await add_schedule(sessions), FIRED_AT, DAY, NOW + timedelta(hours=1))

    await record_fires(sessions, delayed)

    run = await get_run(sessions, requested.run.id)
    assert (run.available_at, run.priority) == (NOW, 0)


@pytest.mark.parametrize("dispatched", [0, 1])
async def test_a_backfill_run_is_as_urgent_as_a_fire_that_joins_it(
    sessions: Sessions, dispatched: int
) -> None:
    async with sessions.begin() as session:
        requested = await request_run(session, trigger=RunTrigger.BACKFILL)
        if dispatched:
            await claim_due_runs(session, now=NOW, lease=LEASE, limit=dispatched)

    assert await record_fire(sessions, await add_schedule(sessions)) == "joined"

    run = await get_run(sessions, requested.run.id)
    assert (run.priority, run.trigger) == (0, RunTrigger.BACKFILL)


async def test_a_fire_joins_the_run_that_its_joined_run_joins(sessions: Sessions) -> None:
    first = await add_joined_run(sessions)
    async with sessions.begin() as session:
        await claim_due_runs(session, now=NOW, lease=LEASE, limit=1)
    await claim_if_unlocked(sessions, first.id)
    second = await create_pending_run(sessions)
    async with sessions.begin() as session:
        await leases.release(session, first.id, fence=1, now=NOW)

    (fire, *_) = await list_all_runs(sessions)
    assert (await get_run(sessions, first.id)).joined_run_id == second.id
    assert fire.joined_run_id == second.id
