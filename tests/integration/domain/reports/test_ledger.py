"""Due fires get into the ledger once each, alone or by the thousand."""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs import cancellation, claims, fire_ledger, leases, retries
from daybook_domain.runs.errors import RunsLocked
from daybook_domain.runs.fire_ledger import Fire, FireCounts
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger, SkipCause
from daybook_domain.schedules.models import Schedule, ScheduleOrigin
from daybook_platform.postgres.engine import Sessions
from tests.support.locks import somebody_waits
from tests.support.runs import (
    DAY,
    LEASE,
    NOW,
    claim_due,
    everything,
    find,
    pending,
    request,
    running,
)

pytestmark = pytest.mark.usefixtures("no_runs")

AT = datetime(2026, 3, 2, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LATER = NOW + timedelta(minutes=10)


async def schedule(sessions: Sessions, name: str = "daily") -> int:
    row = Schedule(name=name, cron="0 0 * * *", timezone="UTC", origin=ScheduleOrigin.SETTINGS)
    async with sessions.begin() as session:
        session.add(row)
        await session.flush()
    assert row.id is not None
    return row.id


async def record(sessions: Sessions, *fires: Fire) -> FireCounts:
    async with sessions.begin() as session:
        return await fire_ledger.record(session, fires, now=NOW)


async def fire(sessions: Sessions, schedule_id: int, *, at: datetime = AT) -> str:
    """Record one fire, and return what became of it."""
    recorded = await record(sessions, Fire(schedule_id, at, DAY, at))
    (what,) = recorded or ["known"]
    return "run" if what is None else str(what)


async def joined(sessions: Sessions) -> ReportRun:
    """Return a run that waits, and that a fire has joined."""
    waits = await pending(sessions)
    assert await fire(sessions, await schedule(sessions)) == "joined"
    return waits


async def cancel(sessions: Sessions, run_id: UUID) -> None:
    async with sessions.begin() as session:
        await cancellation.cancel(session, run_id, now=NOW)


async def retry(sessions: Sessions, run_id: UUID) -> None:
    async with sessions.begin() as session:
        await retries.retry(session, run_id, now=NOW)


async def test_a_fire_becomes_a_run_once(sessions: Sessions) -> None:
    daily = await schedule(sessions)

    states = [await fire(sessions, daily) for _ in range(3)]

    (run,) = await everything(sessions)
    assert states == ["run", "known", "known"]
    assert (run.trigger, run.scheduled_for, run.report_date) == (RunTrigger.SCHEDULE, AT, DAY)


async def test_a_fire_recorded_by_many_at_once_becomes_one_run(sessions: Sessions) -> None:
    daily = await schedule(sessions)

    states = await asyncio.gather(*(fire(sessions, daily) for _ in range(8)))

    assert sorted(states) == ["known"] * 7 + ["run"]
    assert len(await everything(sessions)) == 1


async def test_a_fire_joins_the_run_that_waits_and_is_in_the_ledger(sessions: Sessions) -> None:
    daily = await schedule(sessions)
    waits = await pending(sessions)

    states = [await fire(sessions, daily) for _ in range(2)]

    (fired, _) = await everything(sessions)
    assert states == ["joined", "known"]
    assert (fired.scheduled_for, fired.joined_run_id) == (AT, waits.id)
    assert fired.reason == f"joined: run {waits.id} was waiting for 2026-03-01 already"


async def test_a_fire_joins_a_request_that_is_being_committed(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    daily = await schedule(sessions)
    async with sessions.begin() as session:
        requested = await request(session)
        firing = asyncio.create_task(fire(sessions, daily))
        await somebody_waits(engine)

    assert await firing == "joined"
    (fired, _) = await everything(sessions)
    assert fired.joined_run_id == requested.run.id


async def test_a_fire_does_not_wait_for_somebody_who_holds_the_waiting_run(
    sessions: Sessions,
) -> None:
    daily = await schedule(sessions)
    await pending(sessions)
    async with sessions.begin() as holder:
        await request(holder)
        async with asyncio.timeout(5):
            assert await fire(sessions, daily) == "joined"


async def test_a_fire_adds_a_run_beside_one_that_runs(sessions: Sessions) -> None:
    daily = await schedule(sessions)
    await running(sessions)

    assert await fire(sessions, daily) == "run"


async def test_fires_requests_and_claims_at_once_lose_nothing(sessions: Sessions) -> None:
    daily = await schedule(sessions)

    async def work() -> None:
        async with sessions.begin() as session:
            taken = await claim_due(session, now=LATER, lease=LEASE, limit=5)
        for run in taken:
            await claim(sessions, run.id)

    async def ask() -> None:
        async with sessions.begin() as session:
            await request(session)

    fires = [fire(sessions, daily, at=AT + k * SECOND) for k in range(12)]
    await asyncio.gather(*fires, *(work() for _ in range(12)), *(ask() for _ in range(6)))

    runs = await everything(sessions)
    fired = [run for run in runs if run.schedule_id == daily]
    assert [run.scheduled_for for run in fired] == [AT + k * SECOND for k in range(12)]
    known = {run.id for run in runs}
    assert all(run.joined_run_id in known for run in fired if run.state == RunState.SKIPPED)
    assert sum(run.state in {RunState.PENDING, RunState.QUEUED} for run in runs) <= 1


async def test_a_fire_without_work_is_in_the_ledger_once_with_its_reason(
    sessions: Sessions,
) -> None:
    daily = await schedule(sessions)
    missed = Fire(daily, AT, DAY, AT, cause=SkipCause.CATCHUP, reason="late")

    recorded = [await record(sessions, missed) for _ in range(2)]

    (run,) = await everything(sessions)
    assert recorded == [Counter({SkipCause.CATCHUP: 1}), Counter()]
    assert (run.state, run.cause) == (RunState.MISSED, SkipCause.CATCHUP)
    assert (run.reason, run.finished_at) == ("late", NOW)


async def test_a_thousand_fires_of_some_dates_become_a_run_for_each_date(
    sessions: Sessions,
) -> None:
    daily = await schedule(sessions)
    waits = await pending(sessions, day=DAY)
    fires = [
        Fire(daily, AT + k * SECOND, DAY + timedelta(days=k % 10), AT + k * SECOND)
        for k in range(1000)
    ]

    recorded = await record(sessions, *fires)

    runs = [run for run in await everything(sessions) if run.schedule_id == daily]
    assert recorded == Counter({None: 9, SkipCause.JOINED: 991})
    assert [run.scheduled_for for run in runs] == [fire.scheduled_for for fire in fires]
    works = {run.report_date: run.id for run in runs if run.state == RunState.PENDING}
    works[DAY] = waits.id
    assert all(run.joined_run_id == works[run.report_date] for run in runs if run.cause)


async def test_a_fire_that_joins_lets_the_run_begin_no_later_than_itself(
    sessions: Sessions,
) -> None:
    jittery, punctual = await schedule(sessions), await schedule(sessions, "punctual")
    await record(sessions, Fire(jittery, AT, DAY, AT + timedelta(hours=1)))

    await record(sessions, Fire(punctual, AT, DAY, AT))

    runs = await everything(sessions)
    assert {run.available_at for run in runs if run.state == RunState.PENDING} == {AT}


@pytest.mark.parametrize("sent", [0, 1])
async def test_a_run_of_a_backfill_that_a_fire_joins_is_as_urgent_as_the_fire(
    sessions: Sessions, sent: int
) -> None:
    async with sessions.begin() as session:
        less = await request(session, trigger=RunTrigger.BACKFILL)
        if sent:
            await claim_due(session, now=NOW, lease=LEASE, limit=sent)

    assert await fire(sessions, await schedule(sessions)) == "joined"

    run = await find(sessions, less.run.id)
    assert (run.priority, run.trigger) == (0, RunTrigger.BACKFILL)


async def test_what_was_joined_is_followed_to_the_run_that_does_the_work(
    sessions: Sessions,
) -> None:
    first = await joined(sessions)
    async with sessions.begin() as session:
        await claim_due(session, now=NOW, lease=LEASE, limit=1)
    await claim(sessions, first.id)
    second = await pending(sessions)
    async with sessions.begin() as session:
        await leases.release(session, first.id, fence=1, now=NOW)

    (fired, *_) = await everything(sessions)
    assert (await find(sessions, first.id)).joined_run_id == second.id
    assert fired.joined_run_id == second.id


async def test_a_fire_is_cancelled_with_the_run_that_it_joined(sessions: Sessions) -> None:
    waits = await joined(sessions)

    await cancel(sessions, waits.id)

    (fired, _) = await everything(sessions)
    assert (fired.state, fired.cause, fired.finished_at) == (RunState.CANCELLED, None, NOW)
    assert fired.reason == f"the run that it joined, {waits.id}, was cancelled"


async def test_a_fire_that_was_cancelled_does_not_follow_the_run_that_it_had_joined(
    sessions: Sessions,
) -> None:
    first = await joined(sessions)
    await cancel(sessions, first.id)
    second = await pending(sessions)

    await retry(sessions, first.id)

    (fired, *_) = await everything(sessions)
    assert (await find(sessions, first.id)).joined_run_id == second.id
    assert (fired.state, fired.joined_run_id) == (RunState.CANCELLED, first.id)


async def test_a_fire_that_is_retried_does_its_work_itself(sessions: Sessions) -> None:
    await cancel(sessions, (await joined(sessions)).id)
    (cancelled, _) = await everything(sessions)

    await retry(sessions, cancelled.id)

    fired = await find(sessions, cancelled.id)
    assert (fired.state, fired.reason, fired.joined_run_id) == (RunState.PENDING, None, None)


async def test_a_fire_that_joined_in_the_moment_of_a_cancellation_is_not_forgotten(
    sessions: Sessions,
) -> None:
    daily = await schedule(sessions)
    waits = await pending(sessions)
    async with sessions.begin() as joining:
        await fire_ledger.record(joining, [Fire(daily, AT, DAY, LATER)], now=NOW)
        await cancel(sessions, waits.id)
    (before, _) = await everything(sessions)

    async with sessions.begin() as session:
        await fire_ledger.cancel_joined_fires(session, now=LATER, within=timedelta(hours=1))

    (after, _) = await everything(sessions)
    assert (before.state, after.state) == (RunState.SKIPPED, RunState.CANCELLED)


async def claim(sessions: Sessions, run_id: UUID) -> None:
    with suppress(RunsLocked):
        async with sessions.begin() as session:
            await claims.claim_next(session, run_id, worker="w1", now=NOW, lease=LEASE)
