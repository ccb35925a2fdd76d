"""The dispatch queue: claims of due runs, and the record of their messages, also concurrently."""

import asyncio
from datetime import date

import pytest

from daybook_domain.runs import dispatch_queue
from daybook_domain.runs.models import RunState, RunTrigger
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.runs.operations import AFTER_LEASE, SECOND, claim, reap
from tests.support.factories.runs import (
    LEASE,
    NOW,
    claim_due_runs,
    create_pending_run,
    get_run,
    queue_run,
    request_run,
)

pytestmark = pytest.mark.usefixtures("no_runs")

LONG_LEASE_END = NOW + 10 * LEASE


async def test_due_runs_are_claimed_once_and_the_urgent_first(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        backfill = await request_run(session, day=date(2026, 1, 1), trigger=RunTrigger.BACKFILL)
        not_due = await request_run(session, day=date(2026, 1, 2), now=AFTER_LEASE)
        second = await request_run(session, day=date(2026, 1, 4))
        first = await request_run(session, day=date(2026, 1, 3), now=NOW - SECOND)
    async with sessions.begin() as session:
        claimed = await claim_due_runs(session, now=NOW, lease=LEASE, limit=2)
        rest = await claim_due_runs(session, now=NOW, lease=LEASE, limit=9)

    assert [run.id for run in claimed] == [first.run.id, second.run.id]
    assert [run.id for run in rest] == [backfill.run.id]
    for run in claimed:
        found = await get_run(sessions, run.id)
        assert (found.state, found.lease_until) == (RunState.QUEUED, NOW + LEASE)
    assert (await get_run(sessions, not_due.run.id)).state == RunState.PENDING


async def test_two_concurrent_dispatchers_claim_different_runs(sessions: Sessions) -> None:
    days = [date(2026, 1, day) for day in range(1, 11)]
    for day in days:
        await create_pending_run(sessions, day=day)

    async with sessions.begin() as first_session, sessions.begin() as second_session:
        first = await claim_due_runs(first_session, now=NOW, lease=LEASE, limit=4)
        second = await claim_due_runs(second_session, now=NOW, lease=LEASE, limit=100)

    assert sorted(run.report_date for run in [*first, *second]) == days


async def test_a_sent_run_gets_a_longer_lease(sessions: Sessions) -> None:
    run = await queue_run(sessions)
    async with sessions.begin() as session:
        await dispatch_queue.mark_sent(session, [run], until=LONG_LEASE_END)

    found = await get_run(sessions, run.id)
    assert (found.state, found.lease_until) == (RunState.QUEUED, LONG_LEASE_END)


async def test_an_unsent_run_is_pending_again(sessions: Sessions) -> None:
    run = await queue_run(sessions)
    async with sessions.begin() as session:
        await dispatch_queue.mark_unsent(session, [run], until=AFTER_LEASE)

    found = await get_run(sessions, run.id)
    assert (found.state, found.available_at) == (RunState.PENDING, AFTER_LEASE)
    assert (found.lease_until, found.queued_at) == (None, None)


async def test_a_run_that_was_claimed_meanwhile_is_not_changed_by_its_dispatcher(
    sessions: Sessions,
) -> None:
    run = await queue_run(sessions)
    claimed = await claim(sessions, run)
    async with sessions.begin() as session:
        await dispatch_queue.mark_sent(session, [run], until=LONG_LEASE_END)
        await dispatch_queue.mark_unsent(session, [run], until=AFTER_LEASE)

    assert claimed is not None
    assert await get_run(sessions, run.id) == claimed


async def test_a_delayed_dispatcher_cannot_change_a_run_that_another_has_dispatched(
    sessions: Sessions,
) -> None:
    outdated = await queue_run(sessions)
    await reap(sessions)
    async with sessions.begin() as session:
        (current,) = await claim_due_runs(session, now=AFTER_LEASE, lease=LEASE, limit=1)
        await dispatch_queue.mark_sent(session, [current], until=AFTER_LEASE + 10 * LEASE)
    async with sessions.begin() as session:
        await dispatch_queue.mark_unsent(session, [outdated], until=AFTER_LEASE)

    found = await get_run(sessions, current.id)
    assert (found.state, found.lease_until) == (RunState.QUEUED, AFTER_LEASE + 10 * LEASE)


async def test_marking_skips_locked_runs_and_returns_them(sessions: Sessions) -> None:
    locked = await queue_run(sessions)
    unlocked = await queue_run(sessions, day=date(2026, 1, 1))
    async with sessions.begin() as locking_session:
        await request_run(locking_session)
        async with sessions.begin() as session, asyncio.timeout(5):
            skipped = await dispatch_queue.mark_sent(
                session, [locked, unlocked], until=LONG_LEASE_END
            )
            assert await dispatch_queue.mark_unsent(session, [locked], until=AFTER_LEASE) == [
                locked
            ]

    assert skipped == [locked]
    assert (await get_run(sessions, unlocked.id)).lease_until == LONG_LEASE_END
    assert (await get_run(sessions, locked.id)).lease_until == NOW + LEASE


async def test_marking_does_not_return_a_run_that_was_claimed_meanwhile(
    sessions: Sessions,
) -> None:
    run = await queue_run(sessions)
    await claim(sessions, run)
    async with sessions.begin() as session:
        assert await dispatch_queue.mark_sent(session, [run], until=AFTER_LEASE) == []
        assert await dispatch_queue.mark_unsent(session, [run], until=AFTER_LEASE) == []
