"""Backfills build the requested dates, a few at a time, and none twice."""

import asyncio
from collections import Counter
from datetime import date, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from daybook_domain.backfills import service
from daybook_domain.backfills.errors import BackfillEnded, BackfillNotFound, InvalidRange
from daybook_domain.backfills.models import BackfillMode, BackfillState
from daybook_domain.backfills.service import BackfillRange
from daybook_domain.errors import Invalid
from daybook_domain.runs import cancellation
from daybook_domain.runs.models import RunState, RunTrigger
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.backfills import (
    NOW,
    advance_backfills,
    finish_backfills,
    finish_due_runs,
    finish_run,
    get_backfill,
    get_backfill_progress,
    list_backfill_days,
    march,
    request_backfill,
    seal_day,
)
from tests.support.factories.runs import create_pending_run, get_run, list_all_runs, request_run

pytestmark = pytest.mark.usefixtures("no_runs")

HOUR = timedelta(hours=1)


async def pause(sessions: Sessions, requested: service.RequestedBackfill) -> None:
    async with sessions.begin() as session:
        await service.pause(session, requested.backfill.id)


async def resume(sessions: Sessions, requested: service.RequestedBackfill) -> None:
    async with sessions.begin() as session:
        await service.resume(session, requested.backfill.id)


async def cancel(sessions: Sessions, requested: service.RequestedBackfill) -> None:
    async with sessions.begin() as session:
        await service.cancel(session, requested.backfill.id, now=NOW)


async def test_a_backfill_respects_its_concurrency_and_builds_each_date_once(
    sessions: Sessions,
) -> None:
    requested = await request_backfill(
        sessions, march(1), march(10), concurrency=3, reason="an import"
    )

    built: Counter[object] = Counter()
    while (await get_backfill(sessions, requested)).finished_at is None:
        await advance_backfills(sessions)
        pending = [run for run in await list_all_runs(sessions) if run.state == RunState.PENDING]
        assert len(pending) <= 3
        built.update(run.report_date for run in await finish_due_runs(sessions))

    assert built == Counter(march(day) for day in range(1, 11))
    assert (await get_backfill(sessions, requested)).state is BackfillState.FINISHED
    made = await list_all_runs(sessions)
    assert {(run.trigger, run.priority, run.reason) for run in made} == {
        (RunTrigger.BACKFILL, 20, "an import")
    }
    assert {run.backfill_id for run in made} == {requested.backfill.id}
    assert (await get_backfill_progress(sessions, requested)).outcomes == {"succeeded": 10}


async def test_ten_sealed_years_add_no_run(sessions: Sessions) -> None:
    first = march(1) - timedelta(days=3_650)
    async with sessions.begin() as session:
        await session.execute(
            text(
                "INSERT INTO report_days (report_date, revision, orders_count, products_count,"
                " digest, data_through, built_at, sealed_at, announced_revision)"
                " SELECT d::date, 1, 0, 0, 'd', now(), now(), now(), 0 FROM"
                " generate_series(CAST(:first AS date), CAST(:last AS date), '1 day') AS d"
            ),
            {"first": first, "last": march(1)},
        )
    requested = await request_backfill(sessions, first, march(2))

    assert await finish_backfills(sessions) == Counter([march(2)])

    assert (await get_backfill_progress(sessions, requested)).outcomes == {
        "skipped: sealed": 3_651,
        "succeeded": 1,
    }
    assert len(await list_all_runs(sessions)) == 1


async def test_repeating_a_finished_backfill_builds_nothing(sessions: Sessions) -> None:
    await request_backfill(sessions)
    await finish_backfills(sessions)

    again = await request_backfill(sessions, now=NOW + HOUR)

    assert not again.joined
    assert await finish_backfills(sessions, now=NOW + HOUR) == Counter()
    assert (await get_backfill_progress(sessions, again)).outcomes == {"skipped: sealed": 5}


async def test_repeating_an_active_backfill_joins_it(sessions: Sessions) -> None:
    requested = await request_backfill(sessions)
    await pause(sessions, requested)

    many = await asyncio.gather(*(request_backfill(sessions, now=NOW + HOUR) for _ in range(5)))
    other = await request_backfill(sessions, mode=BackfillMode.ALL)

    assert {again.backfill.id for again in many} == {requested.backfill.id}
    assert all(again.joined for again in many)
    assert (await get_backfill(sessions, requested)).state is BackfillState.PAUSED
    assert other.backfill.id != requested.backfill.id


@pytest.mark.parametrize("mode", BackfillMode)
async def test_overlapping_backfills_build_no_date_twice(
    sessions: Sessions, mode: BackfillMode
) -> None:
    if mode is BackfillMode.FAILED:
        async with sessions.begin() as session:
            for day in range(1, 8):
                await request_run(session, day=march(day), now=NOW - HOUR)
        await finish_due_runs(sessions, now=NOW - HOUR, final_state=RunState.FAILED)
    first = await request_backfill(sessions, march(1), march(5), mode=mode, concurrency=2)
    await advance_backfills(sessions)
    second = await request_backfill(sessions, march(2), march(7), mode=mode, concurrency=3)

    built = await finish_backfills(sessions)

    assert built == Counter(march(day) for day in range(1, 8))
    totals = [await get_backfill_progress(sessions, requested) for requested in (first, second)]
    assert [total.done for total in totals] == [5, 6]
    # Each of the four common dates is built by one of them.
    own = [total.outcomes["succeeded"] - total.joined for total in totals]
    assert sum(own) == 7


async def test_a_pending_run_is_joined_and_keeps_its_priority(sessions: Sessions) -> None:
    pending = await create_pending_run(sessions, day=march(1))
    requested = await request_backfill(sessions, march(1), march(1))

    await advance_backfills(sessions)

    (run,) = await list_all_runs(sessions)
    assert (run.id, run.priority, run.backfill_id) == (pending.id, 0, None)
    (day,) = await list_backfill_days(sessions, requested)
    assert (day.run_id, day.joined, day.outcome) == (pending.id, True, "pending")


async def test_a_date_whose_joined_run_is_cancelled_is_requested_again(
    sessions: Sessions,
) -> None:
    pending = await create_pending_run(sessions, day=march(1))
    requested = await request_backfill(sessions, march(1), march(1))
    await advance_backfills(sessions)
    async with sessions.begin() as session:
        await cancellation.cancel(session, pending.id, now=NOW)

    assert await finish_backfills(sessions) == Counter([march(1)])

    (day,) = await list_backfill_days(sessions, requested)
    assert (day.outcome, day.joined) == ("succeeded", False)
    assert day.run_id != pending.id


async def test_a_run_of_the_backfill_that_a_user_cancels_stays_cancelled(
    sessions: Sessions,
) -> None:
    requested = await request_backfill(sessions, march(1), march(2), concurrency=1)
    await advance_backfills(sessions)
    (run,) = await list_all_runs(sessions)
    async with sessions.begin() as session:
        await cancellation.cancel(session, run.id, now=NOW)

    assert await finish_backfills(sessions) == Counter([march(2)])

    assert (await get_backfill_progress(sessions, requested)).outcomes == {
        "cancelled": 1,
        "succeeded": 1,
    }


async def test_failed_dates_are_counted_and_do_not_stop_the_backfill(sessions: Sessions) -> None:
    requested = await request_backfill(sessions, march(1), march(3), concurrency=1)
    await advance_backfills(sessions)
    await finish_due_runs(sessions, final_state=RunState.FAILED)

    await finish_backfills(sessions)

    assert (await get_backfill_progress(sessions, requested)).outcomes == {
        "failed": 1,
        "succeeded": 2,
    }
    again = await request_backfill(sessions, march(1), march(3), mode=BackfillMode.FAILED)
    assert await finish_backfills(sessions) == Counter([march(1)])
    assert (await get_backfill_progress(sessions, again)).outcomes == {
        "succeeded": 1,
        "skipped: not failed": 2,
    }


async def test_a_paused_backfill_starts_no_date_until_it_is_resumed(sessions: Sessions) -> None:
    requested = await request_backfill(sessions, concurrency=2)
    await advance_backfills(sessions)
    await pause(sessions, requested)
    await finish_due_runs(sessions)

    assert await advance_backfills(sessions) == 0
    paused = await get_backfill_progress(sessions, requested)
    await resume(sessions, requested)
    built = await finish_backfills(sessions)

    assert (paused.outcomes, paused.untouched) == ({"succeeded": 2}, 3)
    assert built == Counter(march(day) for day in (3, 4, 5))


async def test_cancelling_a_backfill_cancels_pending_runs_and_running_builds_finish(
    sessions: Sessions,
) -> None:
    requested = await request_backfill(sessions, concurrency=3)
    await advance_backfills(sessions)
    one, *others = await list_all_runs(sessions)
    async with sessions.begin() as session:
        await session.execute(
            text("UPDATE report_runs SET state = 'running' WHERE id = :id"), {"id": one.id}
        )

    await cancel(sessions, requested)
    await cancel(sessions, requested)
    await advance_backfills(sessions)

    assert (await get_backfill(sessions, requested)).finished_at is None
    async with sessions.begin() as session:
        await finish_run(session, one, RunState.SUCCEEDED, NOW)
    await advance_backfills(sessions)
    found = await get_backfill(sessions, requested)
    assert (found.state, found.finished_at) == (BackfillState.CANCELLED, NOW)
    final = await get_backfill_progress(sessions, requested)
    assert (final.outcomes, final.untouched) == ({"succeeded": 1, "cancelled": 2}, 2)
    for run in others:
        cancelled = await get_run(sessions, run.id)
        assert (cancelled.state, cancelled.reason) == (
            RunState.CANCELLED,
            "the backfill was cancelled",
        )


async def test_cancelling_a_backfill_leaves_runs_that_are_needed_elsewhere(
    sessions: Sessions,
) -> None:
    first = await request_backfill(sessions, march(1), march(3), concurrency=3)
    await advance_backfills(sessions)
    second = await request_backfill(sessions, march(1), march(1))
    await advance_backfills(sessions)
    async with sessions.begin() as session:
        await request_run(session, day=march(2), now=NOW)

    await cancel(sessions, first)
    built = await finish_backfills(sessions)

    assert built == Counter([march(1), march(2)])
    assert (await get_backfill_progress(sessions, second)).outcomes == {"succeeded": 1}


async def test_concurrent_schedulers_start_each_date_once(sessions: Sessions) -> None:
    requested = await request_backfill(sessions, march(1), march(19), concurrency=5)
    built: Counter[object] = Counter()
    while (await get_backfill(sessions, requested)).finished_at is None:
        await asyncio.gather(*(advance_backfills(sessions) for _ in range(4)))
        built.update(run.report_date for run in await finish_due_runs(sessions))

    assert built == Counter(march(day) for day in range(1, 20))


async def test_today_is_built_and_tomorrow_is_rejected(sessions: Sessions) -> None:
    today = NOW.date()
    await request_backfill(sessions, today, today)
    assert await finish_backfills(sessions) == Counter([today])

    with pytest.raises(InvalidRange, match="2026-03-21 is in the future"):
        await request_backfill(sessions, today, today + timedelta(days=1))


async def test_a_clock_that_goes_back_over_midnight_delays_one_backfill_and_no_other(
    sessions: Sessions,
) -> None:
    today = NOW.date()
    delayed = await request_backfill(sessions, today, today)
    await request_backfill(sessions, march(1), march(1))

    assert await advance_backfills(sessions, now=NOW - timedelta(days=1)) == 1

    assert await list_backfill_days(sessions, delayed) == []
    assert await finish_backfills(sessions) == Counter([march(1), today])


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (BackfillRange(first=march(2), last=march(1)), "is after `to`"),
        (BackfillRange(first=march(2) - timedelta(days=3_661), last=march(2)), "at most 3,660"),
        (
            BackfillRange(first=date(1026, 3, 1), last=date(1026, 3, 2)),
            "is out of range; the first",
        ),
    ],
)
def test_an_invalid_range_is_rejected(wanted: BackfillRange, problem: str) -> None:
    with pytest.raises(InvalidRange, match=problem):
        wanted.validate(today=NOW.date())


@pytest.mark.parametrize("concurrency", [0, 101])
async def test_an_invalid_concurrency_is_rejected(sessions: Sessions, concurrency: int) -> None:
    with pytest.raises(Invalid, match="is not 1-100"):
        await request_backfill(sessions, concurrency=concurrency)


async def test_a_finished_backfill_cannot_be_paused_resumed_or_cancelled(
    sessions: Sessions,
) -> None:
    requested = await request_backfill(sessions)
    await finish_backfills(sessions)
    for verb in (pause, resume, cancel):
        with pytest.raises(BackfillEnded, match="it is finished"):
            await verb(sessions, requested)


async def test_an_unknown_backfill_is_not_found(sessions: Sessions) -> None:
    async with sessions() as session:
        with pytest.raises(BackfillNotFound, match="GET /report/backfills"):
            await service.pause(session, UUID(int=1))


async def test_a_preview_returns_the_action_of_each_date_and_changes_nothing(
    sessions: Sessions,
) -> None:
    pending = await create_pending_run(sessions, day=march(1))
    async with sessions.begin() as session:
        await seal_day(session, march(2))
        found = await service.preview(
            session, wanted=BackfillRange(first=march(1), last=march(3)), timezone="UTC", now=NOW
        )

    assert [(day, decision.action, decision.run_id) for day, decision in found] == [
        (march(1), "join", pending.id),
        (march(2), "skip: sealed", None),
        (march(3), "build", None),
    ]
    assert [run.id for run in await list_all_runs(sessions)] == [pending.id]


async def test_old_backfills_are_pruned(sessions: Sessions) -> None:
    requested = await request_backfill(sessions)
    await finish_backfills(sessions)
    later = await request_backfill(sessions, now=NOW + HOUR)

    async with sessions.begin() as session:
        await service.prune(session, before=NOW + HOUR, limit=10)

    assert await list_backfill_days(sessions, requested) == []
    assert (await get_backfill(sessions, later)).finished_at is None
