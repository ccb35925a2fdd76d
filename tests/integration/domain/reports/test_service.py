"""The states of a run, and who may change them, also when many try at once."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.pg_channels import RUNS_CHANNEL
from daybook_domain.reports.models import ReportDay
from daybook_domain.runs import claims, dispatch_queue, leases, reconciliation, requests, retries
from daybook_domain.runs.dispatch_queue import DispatchItem
from daybook_domain.runs.errors import FutureDay, RunsLocked
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_domain.schedules.materialization import materialize
from daybook_platform.postgres.engine import Sessions
from tests.support import schedules
from tests.support.locks import somebody_waits
from tests.support.runs import (
    DAY,
    LEASE,
    NOW,
    claim_due,
    everything,
    find,
    pending,
    queued,
    request,
    running,
)

pytestmark = pytest.mark.usefixtures("no_runs")

SECOND = timedelta(seconds=1)
LATER = NOW + LEASE + SECOND
AT = datetime(2026, 3, 2, tzinfo=UTC)
SHORT_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '50ms'")


async def claim(
    sessions: Sessions, run: ReportRun | DispatchItem, *, worker: str = "w1"
) -> ReportRun | None:
    async with sessions.begin() as session:
        return await claims.claim_next(session, run.id, worker=worker, now=NOW, lease=LEASE)


async def reap(sessions: Sessions, *, now: datetime = LATER) -> list[ReportRun]:
    async with sessions.begin() as session:
        return list(await leases.reap(session, now=now, limit=10))


async def fail(
    sessions: Sessions, run: ReportRun, *, retryable: bool = True, fence: int | None = None
) -> ReportRun | None:
    async with sessions.begin() as session:
        return await retries.record_failure(
            session,
            run.id,
            fence=run.fence if fence is None else fence,
            error_code="broken",
            error_detail="x" * 3000,
            retryable=retryable,
            now=NOW,
        )


async def test_a_request_makes_a_pending_run(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        requested = await request(session)

    run = await find(sessions, requested.run.id)
    assert (run.state, run.report_date, run.attempt) == (RunState.PENDING, DAY, 0)
    assert not requested.joined


async def test_a_day_that_has_not_begun_is_refused(sessions: Sessions) -> None:
    tomorrow = date(2026, 3, 3)

    async with sessions.begin() as session:
        with pytest.raises(FutureDay, match="2026-03-03 has not begun yet"):
            await request(session, day=tomorrow)
        begun = await request(session, day=tomorrow, now=datetime(2026, 3, 3, tzinfo=UTC))

    assert begun.run.report_date == tomorrow


async def test_a_request_joins_the_run_that_waits_and_makes_it_more_urgent(
    sessions: Sessions,
) -> None:
    async with sessions.begin() as session:
        first = await request(session, now=LATER, trigger=RunTrigger.BACKFILL)
    async with sessions.begin() as session:
        second = await request(session, now=NOW, trigger=RunTrigger.MANUAL)

    assert second.joined
    assert second.run.id == first.run.id
    assert (second.run.priority, second.run.available_at) == (0, NOW)
    assert second.run.trigger == RunTrigger.BACKFILL


async def test_a_request_joins_a_queued_run_but_not_a_running_one(sessions: Sessions) -> None:
    waits = await queued(sessions)
    async with sessions.begin() as session:
        joined = await request(session)
    await claim(sessions, waits)
    async with sessions.begin() as session:
        added = await request(session)

    assert (joined.joined, joined.run.id) == (True, waits.id)
    assert (added.joined, added.run.state) == (False, RunState.PENDING)


async def test_requests_at_once_share_one_run(sessions: Sessions) -> None:
    async def ask() -> requests.RequestedRun:
        async with sessions.begin() as session:
            return await request(session)

    outcomes = await asyncio.gather(*(ask() for _ in range(8)))

    assert len({outcome.run.id for outcome in outcomes}) == 1
    assert [outcome.joined for outcome in outcomes].count(False) == 1


async def test_a_joined_run_is_not_claimed_before_the_request_is_committed(
    sessions: Sessions,
) -> None:
    run = await queued(sessions)
    async with sessions.begin() as session:
        await request(session)
        with pytest.raises(RunsLocked):
            await claim(sessions, run)

    assert await claim(sessions, run) is not None


async def test_a_request_that_finds_its_run_claimed_adds_another(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    run = await queued(sessions)

    async def ask() -> requests.RequestedRun:
        async with sessions.begin() as session:
            return await request(session)

    async with sessions.begin() as session:
        await claims.claim_next(session, run.id, worker="w1", now=NOW, lease=LEASE)
        asking = asyncio.create_task(ask())
        await somebody_waits(engine)

    requested = await asking
    assert not requested.joined
    assert requested.run.id != run.id


async def test_a_request_wakes_the_dispatchers_when_it_is_committed(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    heard = asyncio.Event()
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.add_listener(RUNS_CHANNEL, lambda *_: heard.set())
        async with sessions.begin() as session:
            await request(session)
            assert not heard.is_set()
        async with asyncio.timeout(5):
            await heard.wait()
        await connection.invalidate()


async def test_due_runs_are_taken_once_and_the_urgent_first(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        backfill = await request(session, day=date(2026, 1, 1), trigger=RunTrigger.BACKFILL)
        late = await request(session, day=date(2026, 1, 2), now=LATER)
        second = await request(session, day=date(2026, 1, 4))
        first = await request(session, day=date(2026, 1, 3), now=NOW - SECOND)
    async with sessions.begin() as session:
        taken = await claim_due(session, now=NOW, lease=LEASE, limit=2)
        rest = await claim_due(session, now=NOW, lease=LEASE, limit=9)

    assert [run.id for run in taken] == [first.run.id, second.run.id]
    assert [run.id for run in rest] == [backfill.run.id]
    for run in taken:
        found = await find(sessions, run.id)
        assert (found.state, found.lease_until) == (RunState.QUEUED, NOW + LEASE)
    assert (await find(sessions, late.run.id)).state == RunState.PENDING


async def test_two_dispatchers_at_once_take_different_runs(sessions: Sessions) -> None:
    days = [date(2026, 1, day) for day in range(1, 11)]
    for day in days:
        await pending(sessions, day=day)

    async with sessions.begin() as one, sessions.begin() as other:
        mine = await claim_due(one, now=NOW, lease=LEASE, limit=4)
        others = await claim_due(other, now=NOW, lease=LEASE, limit=100)

    assert sorted(run.report_date for run in [*mine, *others]) == days


async def test_a_sent_run_waits_longer_for_a_worker(sessions: Sessions) -> None:
    run = await queued(sessions)
    async with sessions.begin() as session:
        await dispatch_queue.mark_sent(session, [run], until=NOW + 10 * LEASE)

    found = await find(sessions, run.id)
    assert (found.state, found.lease_until) == (RunState.QUEUED, NOW + 10 * LEASE)


async def test_an_unsent_run_is_pending_again(sessions: Sessions) -> None:
    run = await queued(sessions)
    async with sessions.begin() as session:
        await dispatch_queue.mark_unsent(session, [run], until=LATER)

    found = await find(sessions, run.id)
    assert (found.state, found.available_at) == (RunState.PENDING, LATER)
    assert (found.lease_until, found.queued_at) == (None, None)


async def test_a_run_that_was_claimed_meanwhile_is_left_alone_by_its_sender(
    sessions: Sessions,
) -> None:
    run = await queued(sessions)
    claimed = await claim(sessions, run)
    async with sessions.begin() as session:
        await dispatch_queue.mark_sent(session, [run], until=NOW + 10 * LEASE)
        await dispatch_queue.mark_unsent(session, [run], until=LATER)

    assert claimed is not None
    assert await find(sessions, run.id) == claimed


async def test_a_sender_that_was_held_up_cannot_touch_what_another_has_sent(
    sessions: Sessions,
) -> None:
    held_up = await queued(sessions)
    await reap(sessions)
    async with sessions.begin() as session:
        (again,) = await claim_due(session, now=LATER, lease=LEASE, limit=1)
        await dispatch_queue.mark_sent(session, [again], until=LATER + 10 * LEASE)
    async with sessions.begin() as session:
        await dispatch_queue.mark_unsent(session, [held_up], until=LATER)

    found = await find(sessions, again.id)
    assert (found.state, found.lease_until) == (RunState.QUEUED, LATER + 10 * LEASE)


async def test_marking_waits_for_nobody_who_holds_a_run_and_says_whom_it_left_out(
    sessions: Sessions,
) -> None:
    held = await queued(sessions)
    free = await queued(sessions, day=date(2026, 1, 1))
    async with sessions.begin() as holder:
        await request(holder)
        async with sessions.begin() as session, asyncio.timeout(5):
            left = await dispatch_queue.mark_sent(session, [held, free], until=NOW + 10 * LEASE)
            assert await dispatch_queue.mark_unsent(session, [held], until=LATER) == [held]

    assert left == [held]
    assert (await find(sessions, free.id)).lease_until == NOW + 10 * LEASE
    assert (await find(sessions, held.id)).lease_until == NOW + LEASE


async def test_what_was_claimed_meanwhile_is_not_left_to_be_marked(sessions: Sessions) -> None:
    run = await queued(sessions)
    await claim(sessions, run)
    async with sessions.begin() as session:
        assert await dispatch_queue.mark_sent(session, [run], until=LATER) == []
        assert await dispatch_queue.mark_unsent(session, [run], until=LATER) == []


async def test_of_many_deliveries_at_once_one_claims(sessions: Sessions) -> None:
    run = await queued(sessions)

    outcomes = await asyncio.gather(
        *(claim(sessions, run, worker=f"w{k}") for k in range(8)), return_exceptions=True
    )

    (claimed,) = [outcome for outcome in outcomes if isinstance(outcome, ReportRun)]
    assert {type(outcome) for outcome in outcomes} <= {ReportRun, RunsLocked, type(None)}
    assert (claimed.state, claimed.attempt, claimed.fence) == (RunState.RUNNING, 1, 1)
    assert claimed.lease_until == NOW + LEASE


async def test_a_message_of_a_backfill_gets_the_nightly_run_done_first(sessions: Sessions) -> None:
    """Whichever order the messages come in: nobody waits behind what is less urgent."""
    async with sessions.begin() as session:
        for day in (date(2026, 1, 1), date(2026, 1, 2)):
            await request(session, day=day, trigger=RunTrigger.BACKFILL)
        less, least = await claim_due(session, now=NOW, lease=LEASE, limit=2)
        await request(session, day=DAY)
        (urgent,) = await claim_due(session, now=NOW, lease=LEASE, limit=1)

    messages = [least, less, urgent]
    claimed = [await claim(sessions, run) for run in messages]

    assert [run and run.id for run in claimed] == [urgent.id, less.id, least.id]
    assert await claim(sessions, least) is None


async def test_a_run_in_other_hands_is_no_reason_to_leave_the_named_one(
    sessions: Sessions,
) -> None:
    async with sessions.begin() as session:
        await request(session, day=date(2026, 1, 1), trigger=RunTrigger.BACKFILL)
        await request(session, day=DAY)
        urgent, named = await claim_due(session, now=NOW, lease=LEASE, limit=2)
    async with sessions.begin() as other:
        await other.execute(
            text("SELECT 1 FROM report_runs WHERE id = :id FOR UPDATE"), {"id": urgent.id}
        )
        claimed = await claim(sessions, named)

    assert claimed is not None
    assert claimed.id == named.id


@pytest.mark.parametrize("named", ["the held one", "another, which is taken"])
async def test_a_run_that_is_held_is_neither_waited_for_nor_taken_for_done(
    sessions: Sessions, named: str
) -> None:
    """The message of one may have claimed the other; then this is the last message there is."""
    taken = await queued(sessions)
    await claim(sessions, taken)
    held = await queued(sessions, day=date(2026, 1, 1))
    message = held if named == "the held one" else taken
    async with sessions.begin() as holder:
        await holder.get(ReportRun, held.id, with_for_update=True)
        async with asyncio.timeout(5):
            with pytest.raises(RunsLocked):
                await claim(sessions, message)
    claimed = await claim(sessions, message)

    assert claimed is not None
    assert claimed.id == held.id


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


async def test_a_worker_extends_the_lease_of_its_own_run_only(sessions: Sessions) -> None:
    run = await running(sessions)
    async with sessions.begin() as session:
        kept = await leases.extend(
            session, run.id, fence=run.fence, until=LATER, progress="half of it"
        )
        lost = await leases.extend(session, run.id, fence=run.fence - 1, until=NOW)

    found = await find(sessions, run.id)
    assert (kept, lost) == (True, False)
    assert (found.lease_until, found.progress) == (LATER, "half of it")


async def test_a_reaped_run_cannot_be_extended_failed_or_released_by_its_old_worker(
    sessions: Sessions,
) -> None:
    run = await running(sessions)
    await reap(sessions)
    before = await find(sessions, run.id)
    async with sessions.begin() as session:
        extended = await leases.extend(session, run.id, fence=run.fence, until=LATER)
        await leases.release(session, run.id, fence=run.fence, now=NOW)
    failed = await fail(sessions, run)

    assert (extended, failed) == (False, None)
    assert await find(sessions, run.id) == before


async def test_a_failed_attempt_waits_and_keeps_its_error(sessions: Sessions) -> None:
    run = await running(sessions)

    failed = await fail(sessions, run)

    assert failed is not None
    found = await find(sessions, run.id)
    assert (found.state, found.attempt, found.error_code) == (RunState.PENDING, 1, "broken")
    assert NOW + SECOND <= found.available_at <= NOW + 2 * SECOND
    assert found.lease_until is None
    assert found.fence > run.fence
    assert found.error_detail == "x" * 2000


@pytest.mark.parametrize(
    ("attempt", "retryable", "reason"),
    [(5, True, "no attempts left"), (1, False, "not retryable")],
)
async def test_a_run_fails_when_no_attempt_is_left_or_worth_it(
    sessions: Sessions, attempt: int, *, retryable: bool, reason: str
) -> None:
    run = await running(sessions, attempt=attempt)

    await fail(sessions, run, retryable=retryable)

    found = await find(sessions, run.id)
    assert (found.state, found.reason, found.error_code) == (RunState.FAILED, reason, "broken")
    assert found.finished_at == NOW
    assert found.fence > run.fence


@pytest.mark.parametrize(("attempt", "most"), [(1, 2), (2, 4), (5, 32), (9, 300), (1000, 300)])
def test_the_pause_after_a_failure_doubles_to_a_cap(attempt: int, most: int) -> None:
    pause = retries.backoff(attempt)

    assert timedelta(seconds=most / 2) <= pause <= timedelta(seconds=most)


async def test_a_released_run_is_free_at_once_and_its_attempt_does_not_count(
    sessions: Sessions,
) -> None:
    run = await running(sessions)
    async with sessions.begin() as session:
        await leases.release(session, run.id, fence=run.fence, now=NOW)

    found = await find(sessions, run.id)
    assert (found.state, found.attempt, found.available_at) == (RunState.PENDING, 0, NOW)
    assert found.fence > run.fence


async def test_the_reaper_takes_only_what_is_past_its_lease(sessions: Sessions) -> None:
    await running(sessions)
    await queued(sessions, day=date(2026, 1, 1))

    assert await reap(sessions, now=NOW + LEASE) == []
    assert len(await reap(sessions)) == 2


async def test_a_reaped_queued_run_is_sent_again_without_an_attempt(sessions: Sessions) -> None:
    run = await queued(sessions)

    await reap(sessions)

    found = await find(sessions, run.id)
    assert (found.state, found.attempt, found.available_at) == (RunState.PENDING, 0, LATER)


async def test_a_reaped_running_run_has_used_an_attempt_and_goes_on_at_once(
    sessions: Sessions,
) -> None:
    run = await running(sessions)

    await reap(sessions)

    found = await find(sessions, run.id)
    assert (found.state, found.attempt, found.available_at) == (RunState.PENDING, 1, LATER)
    assert (found.error_code, found.error_detail) == (
        "lease_expired",
        "worker w1 did not extend the lease in time",
    )


async def test_a_reaped_run_without_attempts_has_failed(sessions: Sessions) -> None:
    run = await running(sessions, attempt=5)

    await reap(sessions)

    assert (await find(sessions, run.id)).state == RunState.FAILED


async def test_reapers_at_once_take_each_run_once(sessions: Sessions) -> None:
    runs = [await running(sessions, day=date(2026, 1, day)) for day in range(1, 9)]

    reaped = await asyncio.gather(*(reap(sessions) for _ in range(4)))

    assert sorted(run.id for batch in reaped for run in batch) == sorted(run.id for run in runs)


async def test_the_reaper_passes_over_a_run_that_is_about_to_finish(sessions: Sessions) -> None:
    run = await running(sessions)
    async with sessions.begin() as session:
        await leases.extend(session, run.id, fence=run.fence, until=LATER)
        assert await reap(sessions) == []


async def test_a_run_that_comes_back_joins_the_one_that_waits_for_its_date(
    sessions: Sessions,
) -> None:
    reaped = await running(sessions)
    waits = await pending(sessions)

    await reap(sessions)

    found = await find(sessions, reaped.id)
    assert (found.state, found.joined_run_id) == (RunState.SKIPPED, waits.id)
    assert found.reason == f"joined: run {waits.id} was waiting for 2026-03-01 already"
    assert found.finished_at == LATER
    assert (await find(sessions, waits.id)).state == RunState.PENDING


async def test_a_failed_and_a_released_run_join_the_one_that_waits_too(
    sessions: Sessions,
) -> None:
    failed = await running(sessions)
    released = await running(sessions)
    waits = await pending(sessions)
    await fail(sessions, failed)
    async with sessions.begin() as session:
        await leases.release(session, released.id, fence=released.fence, now=NOW)

    for run in (failed, released):
        found = await find(sessions, run.id)
        assert (found.state, found.joined_run_id) == (RunState.SKIPPED, waits.id)


async def test_a_run_comes_back_beside_a_request_that_is_not_committed_yet(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    run = await running(sessions)
    async with sessions.begin() as session:
        requested = await request(session)
        failing = asyncio.create_task(fail(sessions, run))
        await somebody_waits(engine)

    await failing
    assert (await find(sessions, run.id)).joined_run_id == requested.run.id


async def test_a_run_comes_back_when_the_request_beside_it_is_taken_back(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    run = await running(sessions)
    async with sessions() as session:
        await request(session)
        failing = asyncio.create_task(fail(sessions, run))
        await somebody_waits(engine)
        await session.rollback()

    await failing
    assert (await find(sessions, run.id)).state == RunState.PENDING


async def test_the_reaper_goes_on_beside_a_run_that_cannot_come_back_now(
    sessions: Sessions,
) -> None:
    stuck = await running(sessions)
    free = await running(sessions, day=date(2026, 1, 1))
    async with sessions() as holder:
        await request(holder)
        async with sessions.begin() as session:
            await session.execute(SHORT_LOCK_TIMEOUT)
            reaped = await leases.reap(session, now=LATER, limit=10)

    assert [run.id for run in reaped] == [free.id]
    found = await find(sessions, stuck.id)
    assert (found.state, found.lease_until) == (RunState.RUNNING, LATER + leases.REAP_RETRY_DELAY)


async def test_a_run_is_taken_back_while_its_schedule_fires(sessions: Sessions) -> None:
    await schedules.define(sessions)
    await schedules.materialise(sessions, now=schedules.MIDNIGHT)
    async with sessions.begin() as session:
        (run,) = await claim_due(session, now=schedules.MIDNIGHT, lease=LEASE, limit=1)
    tomorrow = schedules.MIDNIGHT + schedules.DAY
    async with sessions() as firing:
        fires = await materialize(firing, now=tomorrow, limit=1)
        async with sessions.begin() as session:
            await session.execute(SHORT_LOCK_TIMEOUT)
            reaped = await leases.reap(session, now=tomorrow, limit=10)

    assert fires.runs == 1
    assert [run.id for run in reaped] == [run.id]


def built(day: date, *, sealed_at: datetime | None) -> ReportDay:
    return ReportDay(
        report_date=day,
        revision=1,
        orders_count=0,
        products_count=0,
        digest="0" * 16,
        data_through=NOW,
        built_at=NOW,
        sealed_at=sealed_at,
    )


async def reconcile(sessions: Sessions, *, now: datetime) -> reconciliation.Reconciliation:
    async with sessions.begin() as session:
        await session.execute(SHORT_LOCK_TIMEOUT)
        return await reconciliation.reconcile(
            session,
            first=date(2026, 2, 27),
            timezone="UTC",
            now=now,
            settle=timedelta(minutes=2),
            interval=timedelta(hours=1),
        )


async def test_a_sealed_day_is_rebuilt_once_it_has_settled_and_then_every_hour(
    sessions: Sessions,
) -> None:
    async with sessions.begin() as session:
        session.add_all(
            [
                built(DAY, sealed_at=NOW),
                built(date(2026, 3, 2), sealed_at=None),
                built(date(2026, 2, 26), sealed_at=NOW - timedelta(days=3)),
            ]
        )
    minutes = (1, 2, 3, 61, 62, 121, 122)
    asked = [
        minute
        for minute in minutes
        if (await reconcile(sessions, now=NOW + timedelta(minutes=minute))).requested == [DAY]
    ]

    (run,) = await everything(sessions)
    assert asked == [2, 62, 122]
    assert (run.trigger, run.priority, run.report_date) == (RunTrigger.RECONCILE, 10, DAY)


async def test_reconcilers_at_once_ask_for_a_day_once(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        session.add(built(DAY, sealed_at=NOW))

    outcomes = await asyncio.gather(
        *(reconcile(sessions, now=NOW + timedelta(minutes=2)) for _ in range(4))
    )

    assert [day for outcome in outcomes for day in outcome.requested] == [DAY]


async def test_a_day_whose_run_is_held_is_postponed_and_the_others_are_not(
    sessions: Sessions,
) -> None:
    other = date(2026, 2, 28)
    async with sessions.begin() as session:
        session.add_all([built(DAY, sealed_at=NOW), built(other, sealed_at=NOW)])
    later = NOW + timedelta(minutes=2)
    async with sessions() as holder:
        await request(holder)
        first = await reconcile(sessions, now=later)
    second = await reconcile(sessions, now=later)

    assert (first.requested, first.postponed) == ([other], [DAY])
    assert (second.requested, second.postponed) == ([DAY], [])
