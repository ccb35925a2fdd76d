"""Does a backfill build what was asked for, a few dates at a time, and nothing twice?"""

import asyncio
from collections import Counter
from datetime import timedelta
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
from daybook_platform.postgres.engine import Sessions
from tests.support import runs
from tests.support.backfills import (
    NOW,
    advance,
    ask,
    days,
    end,
    find,
    march,
    progress,
    seal,
    to_its_end,
    work,
)

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


async def test_a_few_dates_are_under_way_at_once_and_each_is_built_once(
    sessions: Sessions,
) -> None:
    asked = await ask(sessions, march(1), march(10), concurrency=3, reason="an import")

    built: Counter[object] = Counter()
    while (await find(sessions, asked)).finished_at is None:
        await advance(sessions)
        waiting = [run for run in await runs.everything(sessions) if run.state == RunState.PENDING]
        assert len(waiting) <= 3
        built.update(run.report_date for run in await work(sessions))

    assert built == Counter(march(day) for day in range(1, 11))
    assert (await find(sessions, asked)).state is BackfillState.FINISHED
    made = await runs.everything(sessions)
    assert {(run.trigger, run.priority, run.reason) for run in made} == {
        (RunTrigger.BACKFILL, 20, "an import")
    }
    assert {run.backfill_id for run in made} == {asked.backfill.id}
    assert (await progress(sessions, asked)).outcomes == {"succeeded": 10}


async def test_ten_years_that_are_sealed_add_no_run(sessions: Sessions) -> None:
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
    asked = await ask(sessions, first, march(2))

    assert await to_its_end(sessions) == Counter([march(2)])

    assert (await progress(sessions, asked)).outcomes == {"skipped: sealed": 3_651, "succeeded": 1}
    assert len(await runs.everything(sessions)) == 1


async def test_repeating_one_that_has_finished_builds_nothing(sessions: Sessions) -> None:
    await ask(sessions)
    await to_its_end(sessions)

    again = await ask(sessions, now=NOW + HOUR)

    assert not again.joined
    assert await to_its_end(sessions, now=NOW + HOUR) == Counter()
    assert (await progress(sessions, again)).outcomes == {"skipped: sealed": 5}


async def test_repeating_one_that_is_going_on_joins_it(sessions: Sessions) -> None:
    asked = await ask(sessions)
    await pause(sessions, asked)

    many = await asyncio.gather(*(ask(sessions, now=NOW + HOUR) for _ in range(5)))
    other = await ask(sessions, mode=BackfillMode.ALL)

    assert {again.backfill.id for again in many} == {asked.backfill.id}
    assert all(again.joined for again in many)
    assert (await find(sessions, asked)).state is BackfillState.PAUSED
    assert other.backfill.id != asked.backfill.id


@pytest.mark.parametrize("mode", BackfillMode)
async def test_overlapping_ones_build_no_date_twice(sessions: Sessions, mode: BackfillMode) -> None:
    if mode is BackfillMode.FAILED:
        async with sessions.begin() as session:
            for day in range(1, 8):
                await runs.request(session, day=march(day), now=NOW - HOUR)
        await work(sessions, now=NOW - HOUR, ends=RunState.FAILED)
    first = await ask(sessions, march(1), march(5), mode=mode, concurrency=2)
    await advance(sessions)
    second = await ask(sessions, march(2), march(7), mode=mode, concurrency=3)

    built = await to_its_end(sessions)

    assert built == Counter(march(day) for day in range(1, 8))
    ends = [await progress(sessions, asked) for asked in (first, second)]
    assert [end.done for end in ends] == [5, 6]
    # The four dates that both are about are the work of one of them.
    own = [end.outcomes["succeeded"] - end.joined for end in ends]
    assert sum(own) == 7


async def test_a_run_that_waits_is_joined_and_keeps_its_priority(sessions: Sessions) -> None:
    waiting = await runs.pending(sessions, day=march(1))
    asked = await ask(sessions, march(1), march(1))

    await advance(sessions)

    (run,) = await runs.everything(sessions)
    assert (run.id, run.priority, run.backfill_id) == (waiting.id, 0, None)
    (line,) = await days(sessions, asked)
    assert (line.run_id, line.joined, line.outcome) == (waiting.id, True, "pending")


async def test_where_what_was_joined_is_cancelled_the_date_is_asked_for_again(
    sessions: Sessions,
) -> None:
    waiting = await runs.pending(sessions, day=march(1))
    asked = await ask(sessions, march(1), march(1))
    await advance(sessions)
    async with sessions.begin() as session:
        await cancellation.cancel(session, waiting.id, now=NOW)

    assert await to_its_end(sessions) == Counter([march(1)])

    (line,) = await days(sessions, asked)
    assert (line.outcome, line.joined) == ("succeeded", False)
    assert line.run_id != waiting.id


async def test_a_run_of_its_own_that_a_person_cancels_stays_cancelled(sessions: Sessions) -> None:
    asked = await ask(sessions, march(1), march(2), concurrency=1)
    await advance(sessions)
    (run,) = await runs.everything(sessions)
    async with sessions.begin() as session:
        await cancellation.cancel(session, run.id, now=NOW)

    assert await to_its_end(sessions) == Counter([march(2)])

    assert (await progress(sessions, asked)).outcomes == {"cancelled": 1, "succeeded": 1}


async def test_failures_are_counted_and_stop_nothing(sessions: Sessions) -> None:
    asked = await ask(sessions, march(1), march(3), concurrency=1)
    await advance(sessions)
    await work(sessions, ends=RunState.FAILED)

    await to_its_end(sessions)

    assert (await progress(sessions, asked)).outcomes == {"failed": 1, "succeeded": 2}
    again = await ask(sessions, march(1), march(3), mode=BackfillMode.FAILED)
    assert await to_its_end(sessions) == Counter([march(1)])
    assert (await progress(sessions, again)).outcomes == {
        "succeeded": 1,
        "skipped: not failed": 2,
    }


async def test_a_paused_one_begins_nothing_until_it_is_resumed(sessions: Sessions) -> None:
    asked = await ask(sessions, concurrency=2)
    await advance(sessions)
    await pause(sessions, asked)
    await work(sessions)

    assert await advance(sessions) == 0
    so_far = await progress(sessions, asked)
    await resume(sessions, asked)
    built = await to_its_end(sessions)

    assert (so_far.outcomes, so_far.untouched) == ({"succeeded": 2}, 3)
    assert built == Counter(march(day) for day in (3, 4, 5))


async def test_cancelling_withdraws_what_was_not_begun_and_running_builds_finish(
    sessions: Sessions,
) -> None:
    asked = await ask(sessions, concurrency=3)
    await advance(sessions)
    one, *others = await runs.everything(sessions)
    async with sessions.begin() as session:
        await session.execute(
            text("UPDATE report_runs SET state = 'running' WHERE id = :id"), {"id": one.id}
        )

    await cancel(sessions, asked)
    await cancel(sessions, asked)
    await advance(sessions)

    assert (await find(sessions, asked)).finished_at is None
    async with sessions.begin() as session:
        await end(session, one, RunState.SUCCEEDED, NOW)
    await advance(sessions)
    found = await find(sessions, asked)
    assert (found.state, found.finished_at) == (BackfillState.CANCELLED, NOW)
    at_last = await progress(sessions, asked)
    assert (at_last.outcomes, at_last.untouched) == ({"succeeded": 1, "cancelled": 2}, 2)
    for run in others:
        cancelled = await runs.find(sessions, run.id)
        assert (cancelled.state, cancelled.reason) == (
            RunState.CANCELLED,
            "the backfill was cancelled",
        )


async def test_cancelling_leaves_what_others_wait_for(sessions: Sessions) -> None:
    first = await ask(sessions, march(1), march(3), concurrency=3)
    await advance(sessions)
    second = await ask(sessions, march(1), march(1))
    await advance(sessions)
    async with sessions.begin() as session:
        await runs.request(session, day=march(2), now=NOW)

    await cancel(sessions, first)
    built = await to_its_end(sessions)

    assert built == Counter([march(1), march(2)])
    assert (await progress(sessions, second)).outcomes == {"succeeded": 1}


async def test_two_schedulers_together_hand_out_each_date_once(sessions: Sessions) -> None:
    asked = await ask(sessions, march(1), march(19), concurrency=5)
    built: Counter[object] = Counter()
    while (await find(sessions, asked)).finished_at is None:
        await asyncio.gather(*(advance(sessions) for _ in range(4)))
        built.update(run.report_date for run in await work(sessions))

    assert built == Counter(march(day) for day in range(1, 20))


async def test_today_is_built_and_tomorrow_refused(sessions: Sessions) -> None:
    today = NOW.date()
    await ask(sessions, today, today)
    assert await to_its_end(sessions) == Counter([today])

    with pytest.raises(InvalidRange, match="2026-03-21 has not begun yet"):
        await ask(sessions, today, today + timedelta(days=1))


async def test_a_clock_that_is_put_back_over_midnight_delays_one_and_stops_no_other(
    sessions: Sessions,
) -> None:
    today = NOW.date()
    delayed = await ask(sessions, today, today)
    await ask(sessions, march(1), march(1))

    assert await advance(sessions, now=NOW - timedelta(days=1)) == 1

    assert await days(sessions, delayed) == []
    assert await to_its_end(sessions) == Counter([march(1), today])


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (BackfillRange(first=march(2), last=march(1)), "turned round"),
        (BackfillRange(first=march(2) - timedelta(days=3_661), last=march(2)), "at most 3,660"),
    ],
)
def test_a_range_that_cannot_be_is_refused(wanted: BackfillRange, said: str) -> None:
    with pytest.raises(InvalidRange, match=said):
        wanted.check(today=NOW.date())


@pytest.mark.parametrize("concurrency", [0, 101])
async def test_a_concurrency_that_cannot_be_is_refused(
    sessions: Sessions, concurrency: int
) -> None:
    with pytest.raises(Invalid, match="is not 1-100"):
        await ask(sessions, concurrency=concurrency)


async def test_what_has_ended_cannot_be_paused_resumed_or_cancelled(sessions: Sessions) -> None:
    asked = await ask(sessions)
    await to_its_end(sessions)
    for verb in (pause, resume, cancel):
        with pytest.raises(BackfillEnded, match="it is finished"):
            await verb(sessions, asked)


async def test_there_is_no_backfill_of_that_id(sessions: Sessions) -> None:
    async with sessions() as session:
        with pytest.raises(BackfillNotFound, match="GET /report/backfills"):
            await service.pause(session, UUID(int=1))


async def test_a_preview_says_what_would_become_of_each_date_and_changes_nothing(
    sessions: Sessions,
) -> None:
    waiting = await runs.pending(sessions, day=march(1))
    async with sessions.begin() as session:
        await seal(session, march(2))
        found = await service.preview(
            session, wanted=BackfillRange(first=march(1), last=march(3)), timezone="UTC", now=NOW
        )

    assert [(day, decision.verdict, decision.run_id) for day, decision in found] == [
        (march(1), "join", waiting.id),
        (march(2), "skip: sealed", None),
        (march(3), "build", None),
    ]
    assert [run.id for run in await runs.everything(sessions)] == [waiting.id]


async def test_old_ones_are_forgotten(sessions: Sessions) -> None:
    asked = await ask(sessions)
    await to_its_end(sessions)
    later = await ask(sessions, now=NOW + HOUR)

    async with sessions.begin() as session:
        await service.prune(session, before=NOW + HOUR, limit=10)

    assert await days(sessions, asked) == []
    assert (await find(sessions, later)).finished_at is None
