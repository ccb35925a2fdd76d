"""The loop's promises, with real rows and a queue that can be looked into."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial

import pytest
import structlog

from daybook_domain.backfills.service import RequestedBackfill
from daybook_domain.reports.build import build_day
from daybook_domain.reports.business_day import business_day
from daybook_domain.reports.models import ReportDay
from daybook_domain.runs import claims
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_platform.postgres.engine import create_engine
from daybook_scheduler.dispatch import AT_ONCE, Dispatcher
from daybook_scheduler.metrics import SchedulerMetrics
from daybook_scheduler.transactions import TransactionFactory
from tests.integration.scheduler.loops import PATIENT, PLAN, Loops, RecordingQueue, count
from tests.support import backfills, schedules
from tests.support.proxy import Proxy
from tests.support.runs import LEASE, everything, find, pending, queued, request, running
from tests.support.waiting import until


async def test_a_due_fire_is_materialised_and_sent(loops: Loops) -> None:
    queue, metrics = RecordingQueue(), SchedulerMetrics()
    async with loops.running(queue, metrics=metrics):
        await loops.make_due()
        await until(lambda: everything(loops.sessions), what="a run")
        (run,) = await everything(loops.sessions)
        await queue.has(run.id)

    found = await find(loops.sessions, run.id)
    assert (found.trigger, found.state) == (RunTrigger.SCHEDULE, RunState.QUEUED)
    assert run.scheduled_for is not None
    assert run.report_date == run.scheduled_for.date() - timedelta(days=1)
    assert found.queued_at is not None
    assert found.lease_until is not None
    assert found.lease_until - found.queued_at > PLAN.queue_lease - timedelta(seconds=1)
    assert count(metrics, "fires_total", outcome="run") == 1
    assert count(metrics, "dispatched_total", outcome="sent") == 1
    assert count(metrics, "dispatch_lag_seconds_count") == 1
    assert count(metrics, "ticks_total", step="materialise", outcome="ok") > 0


@pytest.mark.parametrize("away", [False, True])
async def test_what_became_of_a_run_is_written_down_when_nobody_holds_it_any_more(
    loops: Loops, *, away: bool
) -> None:
    """Another scheduler holds it for a moment when it finds it pending and comes too late."""
    queue, metrics = RecordingQueue(), SchedulerMetrics()
    # Nobody takes it back before the test has ended.
    plan = replace(PLAN, dispatch_lease=timedelta(minutes=2))
    queue.away = away
    queue.free.clear()
    run = await pending(loops.sessions)

    async def sent_or_not() -> bool:
        return count(metrics, "dispatched_total", outcome="unsent" if away else "sent") == 1

    async def some_ticks_later() -> bool:
        return count(metrics, "ticks_total", step="dispatch", outcome="ok") > ticks + 5

    async def marked() -> bool:
        found = await find(loops.sessions, run.id)
        left = found.lease_until and found.lease_until - datetime.now(UTC)
        return left is None if away else bool(left and left > plan.dispatch_lease)

    async with loops.running(queue, plan=plan, metrics=metrics):
        await queue.was_tried()
        async with loops.sessions.begin() as holder:
            await holder.get(ReportRun, run.id, with_for_update=True)
            queue.free.set()
            await until(sent_or_not)
            ticks = count(metrics, "ticks_total", step="dispatch", outcome="ok")
            await until(some_ticks_later, what="trying to write it down")
            assert not await marked()
        await until(marked, what="writing it down")


async def test_a_fire_does_not_wait_for_the_tick(loops: Loops) -> None:
    now = datetime.now(UTC)
    await schedules.add(loops.sessions, "soon", now=now)
    await schedules.change(loops.sessions, "soon", next_fire_at=now + timedelta(seconds=2))
    queue = RecordingQueue()
    async with loops.running(queue, plan=PATIENT):
        (run,) = await until(lambda: everything(loops.sessions), what="a run")
        await queue.has(run.id)

    assert run.scheduled_for is not None
    assert run.created_at >= run.scheduled_for


async def test_two_schedulers_send_one_run_for_each_fire(loops: Loops) -> None:
    first, second = RecordingQueue(), RecordingQueue()

    async def all_sent() -> bool:
        return len(first.sent) + len(second.sent) >= 5

    async with loops.running(first), loops.running(second):
        await loops.make_due(nights=5)
        await until(all_sent, what="five runs")

    runs = await everything(loops.sessions)
    assert sorted([*first.sent, *second.sent]) == sorted(run.id for run in runs)
    assert len({run.report_date for run in runs}) == len(runs) == 5


async def test_more_than_a_batch_is_sent_without_waiting_for_ticks(loops: Loops) -> None:
    await loops.execute(
        "INSERT INTO report_runs (id, report_date, trigger, state, priority, attempt,"
        " max_attempts, available_at, fence) SELECT gen_random_uuid(), date '2020-01-01' + k,"
        " 'backfill', 'pending', 20, 0, 5, now(), 0 FROM generate_series(1, 1100) AS k"
    )
    queue = RecordingQueue()
    async with loops.running(queue, plan=PATIENT):
        await queue.has(*[run.id for run in await everything(loops.sessions)])


async def test_a_notification_is_answered_sooner_than_the_tick(loops: Loops) -> None:
    queue = RecordingQueue()
    async with loops.running(queue, plan=PATIENT):
        await until(loops.listens, what="listening")
        run = await pending(loops.sessions)
        await queue.has(run.id)


async def test_a_lost_listener_is_replaced(loops: Loops) -> None:
    queue = RecordingQueue()
    async with loops.running(queue, plan=PATIENT):
        await until(loops.listens, what="listening")
        await loops.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query ILIKE 'LISTEN %'"
        )
        await until(loops.listens, what="listening again")
        run = await pending(loops.sessions)
        await queue.has(run.id)


async def test_a_run_that_was_not_taken_is_pending_again_and_sent_when_it_can_be(
    loops: Loops,
) -> None:
    run = await pending(loops.sessions)
    queue, metrics = RecordingQueue(), SchedulerMetrics()
    queue.away = True

    async def is_pending() -> bool:
        found = await find(loops.sessions, run.id)
        return queue.tried > 0 and found.state == RunState.PENDING

    with structlog.testing.capture_logs() as logged:
        async with loops.running(queue, metrics=metrics):
            await until(is_pending, what="giving the run back")
            queue.away = False
            await queue.has(run.id)

    events = [line["event"] for line in logged if "RabbitMQ" in line["event"]]
    assert events == ["RabbitMQ is away; trying again until it is back", "RabbitMQ is back"]
    assert count(metrics, "dispatched_total", outcome="unsent") >= 1


async def test_a_broker_that_is_away_is_tried_once_a_pause_and_not_once_a_run(
    loops: Loops,
) -> None:
    queue = RecordingQueue()
    queue.away = True
    loop = loops.make(queue)
    for day in range(1, 31):
        await pending(loops.sessions, day=datetime(2026, 1, day, tzinfo=UTC).date())

    await loop.dispatch()
    first = queue.tried
    for _ in range(5):
        await loop.dispatch()

    assert first <= 10
    assert queue.tried == first
    assert {run.state for run in await everything(loops.sessions)} == {RunState.PENDING}


async def test_a_mistake_of_ours_loses_no_run_either(loops: Loops) -> None:
    run = await pending(loops.sessions)
    queue = RecordingQueue()
    queue.broken = True

    await loops.make(queue).dispatch()

    assert (await find(loops.sessions, run.id)).state == RunState.PENDING


async def test_while_a_message_hangs_the_other_steps_go_on(loops: Loops) -> None:
    stuck = await pending(loops.sessions)
    abandoned = await running(loops.sessions, day=datetime(2026, 1, 1, tzinfo=UTC).date())
    queue = RecordingQueue()
    queue.free.clear()

    async def went_on() -> bool:
        runs = await everything(loops.sessions)
        fired = [run for run in runs if run.trigger == RunTrigger.SCHEDULE]
        reaped = [run for run in runs if run.id == abandoned.id and run.attempt == 1]
        return bool(fired) and reaped[0].state != RunState.RUNNING

    async with loops.running(queue):
        await queue.was_tried()
        await loops.make_due()
        await until(went_on, what="materialising and reaping")
        assert (await find(loops.sessions, stuck.id)).state == RunState.QUEUED
        queue.free.set()


async def test_a_crash_between_commit_and_publish_is_made_up_for(loops: Loops) -> None:
    run = await pending(loops.sessions)
    dying, queue = RecordingQueue(), RecordingQueue()
    dying.free.clear()
    task = asyncio.create_task(loops.make(dying).dispatch())
    await dying.was_tried()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert dying.sent == []
    assert (await find(loops.sessions, run.id)).state == RunState.QUEUED

    await loops.execute("UPDATE report_runs SET lease_until = now() - interval '1 second'")
    metrics = SchedulerMetrics()
    async with loops.running(queue, metrics=metrics):
        await queue.has(run.id)

    assert count(metrics, "reaped_total") == 1


async def test_a_stopped_dispatcher_finishes_what_is_under_way_and_gives_the_rest_back(
    loops: Loops,
) -> None:
    for day in range(2 * AT_ONCE):
        await pending(loops.sessions, day=date(2025, 1, 1) + timedelta(days=day))
    queue = RecordingQueue()
    queue.free.clear()
    dispatcher = Dispatcher(
        database=TransactionFactory(loops.sessions),
        queue=queue,
        metrics=SchedulerMetrics(),
        lease=PLAN.dispatch_lease,
        queue_lease=PLAN.queue_lease,
    )
    task = asyncio.create_task(dispatcher.dispatch())
    await queue.was_tried(AT_ONCE)
    dispatcher.stop()
    queue.free.set()
    await asyncio.wait_for(task, timeout=5)

    runs = await everything(loops.sessions)
    assert len(queue.sent) == AT_ONCE
    assert {run.state for run in runs if run.id in queue.sent} == {RunState.QUEUED}
    assert {run.state for run in runs if run.id not in queue.sent} == {RunState.PENDING}


async def test_a_stopped_loop_does_not_wait_for_a_message_that_hangs(loops: Loops) -> None:
    await pending(loops.sessions)
    queue, stop = RecordingQueue(), asyncio.Event()
    queue.free.clear()
    task = asyncio.create_task(loops.make(queue).run(stop))
    await queue.was_tried()
    stop.set()

    await asyncio.wait_for(task, timeout=8)


async def test_late_orders_get_in_by_a_rebuild_of_the_latest_days(loops: Loops) -> None:
    now = datetime.now(UTC)
    today = now.date()
    async with loops.sessions.begin() as session:
        session.add_all(
            ReportDay(
                report_date=today - timedelta(days=days),
                revision=1,
                orders_count=0,
                products_count=0,
                digest="0" * 16,
                data_through=now,
                built_at=now,
                sealed_at=now - timedelta(minutes=5),
            )
            for days in (1, 3, 4)
        )
    queue, metrics = RecordingQueue(), SchedulerMetrics()

    async def asked() -> bool:
        return len(queue.sent) == 2

    async with loops.running(queue, metrics=metrics):
        await until(asked, what="two rebuilds")

    runs = await everything(loops.sessions)
    assert [run.report_date for run in runs] == [
        today - timedelta(days=3),
        today - timedelta(days=1),
    ]
    assert {run.trigger for run in runs} == {RunTrigger.RECONCILE}
    assert count(metrics, "reconciled_total", outcome="requested") == 2


async def test_a_schedule_that_cannot_fire_is_reported_once_and_stops_no_other(
    loops: Loops,
) -> None:
    queue, metrics = RecordingQueue(), SchedulerMetrics()

    async def failed_twice() -> bool:
        return count(metrics, "fires_total", outcome="failed") >= 2

    with structlog.testing.capture_logs() as logged:
        async with loops.running(queue, metrics=metrics):
            now = datetime.now(UTC)
            await schedules.add(loops.sessions, "broken", now=now)
            await schedules.change(loops.sessions, "broken", cron="nonsense", next_fire_at=now)
            await until(failed_twice, what="two failures")
            await loops.make_due()
            await until(lambda: everything(loops.sessions), what="the other's run")

    broken = [line for line in logged if line.get("schedule") == "broken"]
    assert [line["event"] for line in broken] == ["a schedule cannot fire; its row says why"]


async def test_a_migration_that_is_missing_is_told_once_whichever_step_needs_it(
    loops: Loops,
) -> None:
    queue, metrics = RecordingQueue(), SchedulerMetrics()

    async def failed_twice() -> bool:
        return count(metrics, "ticks_total", step="prune", outcome="failed") >= 2

    await loops.execute("ALTER TABLE ledger_beginnings RENAME TO not_there_yet")
    try:
        with structlog.testing.capture_logs() as logged:
            async with loops.running(queue, plan=replace(PLAN, ledger_days=1), metrics=metrics):
                await until(failed_twice, what="two failures")
    finally:
        await loops.execute("ALTER TABLE not_there_yet RENAME TO ledger_beginnings")

    told = [line for line in logged if "daybook migrate" in line["event"]]
    assert [line["step"] for line in told] == ["prune"]
    assert "ledger_beginnings" in told[0]["reason"]


async def test_postgres_may_go_and_come_back(loops: Loops, postgres_url: str) -> None:
    queue = RecordingQueue()

    async with Proxy(postgres_url) as proxy:
        engine = create_engine(proxy.url, application="tests", pool_size=6)
        with structlog.testing.capture_logs() as logged:

            async def noticed() -> bool:
                return any("Postgres is away" in line["event"] for line in logged)

            async with loops.running(queue, engine=engine):
                await until(loops.is_defined, what="the first tick")
                await proxy.cut()
                await until(noticed, what="noticing")
                run = await pending(loops.sessions)
                await proxy.mend()
                await queue.has(run.id)
        await engine.dispose()

    events = [line["event"] for line in logged if "Postgres" in line["event"]]
    assert events == ["Postgres is away; trying again until it is back", "Postgres is back"]
    assert not [line for line in logged if line["log_level"] == "error"]


async def test_a_run_that_somebody_holds_keeps_no_other_from_being_sent(loops: Loops) -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC).date()
    await pending(loops.sessions, day=day)
    free = await pending(loops.sessions)
    queue = RecordingQueue()
    async with loops.sessions.begin() as holder:
        await request(holder, day=day)
        async with loops.running(queue):
            await queue.has(free.id)


async def test_a_queued_run_whose_message_was_lost_is_sent_again(loops: Loops) -> None:
    run = await queued(loops.sessions)
    queue = RecordingQueue()

    async with loops.running(queue):
        await queue.has(run.id)


async def test_a_backfill_goes_on_with_the_end_of_a_build_and_not_with_the_tick(
    loops: Loops,
) -> None:
    queue, metrics = RecordingQueue(), SchedulerMetrics()
    today = datetime.now(UTC).date()
    first, last = today - timedelta(days=3), today - timedelta(days=1)
    asked = await backfills.ask(loops.sessions, first, last, now=datetime.now(UTC), concurrency=1)
    async with loops.running(queue, plan=PATIENT, metrics=metrics):
        for count_sent in range(1, 4):
            await queue.was_tried(count_sent)
            run_id = queue.sent[-1]
            async with loops.sessions.begin() as session:
                run = await claims.claim_next(
                    session, run_id, worker="w", now=datetime.now(UTC), lease=LEASE
                )
            assert run is not None
            async with loops.engine.begin() as connection:
                day = business_day(run.report_date, timezone="UTC")
                await build_day(connection, day=day, run_id=run_id, fence=run.fence)
        await until(partial(_has_finished, loops, asked), what="the end of the backfill")

    runs = await everything(loops.sessions)
    assert [run.state for run in runs] == [RunState.SUCCEEDED] * 3
    assert count(metrics, "backfilled_total") == 3


async def _has_finished(loops: Loops, asked: RequestedBackfill) -> bool:
    return (await backfills.find(loops.sessions, asked)).finished_at is not None


async def test_two_schedulers_share_a_backfill(loops: Loops) -> None:
    first, second = RecordingQueue(), RecordingQueue()
    await backfills.ask(loops.sessions, backfills.march(1), backfills.march(20), concurrency=20)

    async def all_sent() -> bool:
        return len(first.sent) + len(second.sent) >= 20

    async with loops.running(first), loops.running(second):
        await until(all_sent, what="a run of each date")

    runs = [run for run in await everything(loops.sessions) if run.trigger == RunTrigger.BACKFILL]
    assert sorted([*first.sent, *second.sent]) == sorted(run.id for run in runs)
    assert len({run.report_date for run in runs}) == len(runs) == 20
