"""Does each run have one effect, and is its outcome on record, whatever happens to the build?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain import clock
from daybook_domain.runs import leases
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_domain.runs.tasks import BuildReport
from daybook_domain.tasks import Interrupted
from daybook_platform.postgres.engine import Sessions, create_engine
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.reports import ReportBuilder
from tests.integration.worker.runs import (
    DAY,
    builds_waiting,
    built_day,
    failing,
    held_up,
    queued_run,
    run,
)
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("clean")


def builder(
    engine: AsyncEngine,
    *,
    lease: float = 30,
    name: str = "w1",
    metrics: WorkerMetrics | None = None,
    at_once: int = 1,
) -> ReportBuilder:
    return ReportBuilder(
        engine,
        timezone="UTC",
        lease=timedelta(seconds=lease),
        worker=name,
        metrics=metrics or WorkerMetrics(),
        at_once=at_once,
    )


@asynccontextmanager
async def building(
    engine: AsyncEngine, worker: ReportBuilder, task: BuildReport
) -> AsyncIterator[asyncio.Task[None]]:
    """Begin a build, and enter the block when it waits for its date."""
    work = asyncio.create_task(worker.build(task))
    await until(lambda: _waiting(engine, 1), what="the build's wait")
    yield work


async def _waiting(engine: AsyncEngine, builds: int) -> bool:
    return await builds_waiting(engine) == builds


def outcomes(registry: CollectorRegistry) -> dict[str, float]:
    return {
        sample.labels["outcome"]: sample.value
        for family in registry.collect()
        if family.name == "daybook_runs_finished"
        for sample in family.samples
        if sample.name.endswith("_total")
    }


async def test_a_run_is_built_and_ends_as_succeeded(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id, metrics = await queued_run(sessions), WorkerMetrics()

    await builder(engine, metrics=metrics).build(BuildReport(run_id=run_id))

    done, day = await run(sessions, run_id), await built_day(sessions)
    assert (done.state, done.worker, done.attempt) == (RunState.SUCCEEDED, "w1", 1)
    assert day is not None
    assert (day.revision, day.last_run_id) == (1, run_id)
    assert outcomes(metrics.registry) == {"succeeded": 1}


async def test_a_second_delivery_changes_nothing(engine: AsyncEngine, sessions: Sessions) -> None:
    run_id = await queued_run(sessions)
    await builder(engine).build(BuildReport(run_id=run_id))
    before = await run(sessions, run_id)

    await builder(engine).build(BuildReport(run_id=run_id))

    assert await run(sessions, run_id) == before


async def test_of_two_workers_with_the_same_message_one_builds(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id, metrics = await queued_run(sessions), WorkerMetrics()
    workers = [builder(engine, name=f"w{number}", metrics=metrics) for number in range(8)]

    await asyncio.gather(*(worker.build(BuildReport(run_id=run_id)) for worker in workers))

    done = await run(sessions, run_id)
    assert (done.state, done.attempt, done.fence) == (RunState.SUCCEEDED, 1, 1)
    assert outcomes(metrics.registry) == {"succeeded": 1}


async def test_a_nightly_run_finds_a_place_while_backfills_wait_for_theirs(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    first, second, third = (DAY + timedelta(days=n) for n in range(3))
    worker = builder(engine, at_once=2)
    async with held_up(engine, day=first), held_up(engine, day=second):
        backfills = [
            await queued_run(sessions, day=day, trigger=RunTrigger.BACKFILL)
            for day in (first, second)
        ]
        async with building(engine, worker, BuildReport(run_id=backfills[0])) as one:
            other = asyncio.create_task(worker.build(BuildReport(run_id=backfills[1])))
            nightly = await queued_run(sessions, day=third)

            await asyncio.wait_for(other, timeout=20)

            assert (await run(sessions, nightly)).state is RunState.SUCCEEDED
            assert (await run(sessions, backfills[1])).state is RunState.QUEUED
            # Its message has been used for the nightly run, whose message now stands for it.
            other = asyncio.create_task(worker.build(BuildReport(run_id=nightly)))
    await asyncio.gather(one, other)

    ended = [await run(sessions, each) for each in backfills]
    assert [each.state for each in ended] == [RunState.SUCCEEDED] * 2


@pytest.mark.parametrize(("at_once", "backfills"), [(1, 1), (2, 1), (4, 3)])
async def test_backfills_leave_one_place_of_several(
    engine: AsyncEngine, sessions: Sessions, at_once: int, backfills: int
) -> None:
    days = [DAY + timedelta(days=n) for n in range(at_once)]
    worker = builder(engine, at_once=at_once)
    async with AsyncExitStack() as stack:
        for day in days:
            await stack.enter_async_context(held_up(engine, day=day))
        ids = [await queued_run(sessions, day=day, trigger=RunTrigger.BACKFILL) for day in days]
        work = [asyncio.create_task(worker.build(BuildReport(run_id=each))) for each in ids]
        await until(lambda: _waiting(engine, backfills), what="the builds")
        nightly = await queued_run(sessions, day=DAY + timedelta(days=at_once))
        if at_once > 1:
            await until(lambda: _ended(sessions, nightly), what="the nightly run")
        assert await builds_waiting(engine) == backfills
    await asyncio.gather(*work, worker.build(BuildReport(run_id=nightly)))

    ended = [await run(sessions, each) for each in (*ids, nightly)]
    assert {each.state for each in ended} == {RunState.SUCCEEDED}


async def _ended(sessions: Sessions, run_id: UUID) -> bool:
    return (await run(sessions, run_id)).state is RunState.SUCCEEDED


async def test_a_message_that_waits_for_its_turn_goes_back_when_the_worker_leaves(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    first, second = DAY, DAY + timedelta(days=1)
    worker = builder(engine, at_once=2)
    async with held_up(engine, day=first):
        ids = [
            await queued_run(sessions, day=day, trigger=RunTrigger.BACKFILL)
            for day in (first, second)
        ]
        async with building(engine, worker, BuildReport(run_id=ids[0])) as one:
            other = asyncio.create_task(worker.build(BuildReport(run_id=ids[1])))
            worker.stop()
            with pytest.raises(Interrupted):
                await other
    await one

    ended = [await run(sessions, each) for each in ids]
    assert [each.state for each in ended] == [RunState.SUCCEEDED, RunState.QUEUED]


async def test_a_run_that_does_not_exist_is_no_error(engine: AsyncEngine) -> None:
    await builder(engine).build(BuildReport(run_id=uuid4()))


async def test_a_bug_is_recorded_on_the_run_and_raised_for_the_message(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id = await queued_run(sessions)

    async with failing(engine, sqlstate="P0001"):
        with pytest.raises(DBAPIError):
            await builder(engine).build(BuildReport(run_id=run_id))

    failed = await run(sessions, run_id)
    assert (failed.state, failed.attempt) == (RunState.PENDING, 1)
    assert "no luck" in (failed.error_detail or "")
    assert await built_day(sessions) is None


@pytest.mark.parametrize("sqlstate", ["40P01", "53200", "57014", "55P03"])
async def test_a_database_that_cannot_now_is_recorded_and_the_message_is_done(
    engine: AsyncEngine, sessions: Sessions, sqlstate: str
) -> None:
    run_id = await queued_run(sessions)

    async with failing(engine, sqlstate=sqlstate):
        await builder(engine).build(BuildReport(run_id=run_id))

    failed = await run(sessions, run_id)
    assert (failed.state, failed.error_code) == (RunState.PENDING, "unavailable")


async def test_a_killed_connection_is_recorded_and_the_message_is_done(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id = await queued_run(sessions)

    async with (
        held_up(engine),
        building(engine, builder(engine), BuildReport(run_id=run_id)) as work,
    ):
        async with engine.connect() as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks"
                    " WHERE locktype = 'advisory' AND NOT granted"
                )
            )
        await work

    failed = await run(sessions, run_id)
    assert (failed.state, failed.error_code) == (RunState.PENDING, "unavailable")


async def test_a_long_build_keeps_its_lease_and_says_how_long_it_goes_on(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id = await queued_run(sessions)
    worker = builder(engine, lease=0.6)

    async with held_up(engine), building(engine, worker, BuildReport(run_id=run_id)) as work:
        first = (await run(sessions, run_id)).lease_until
        assert first is not None

        async def kept() -> bool:
            now = await run(sessions, run_id)
            assert now.state == RunState.RUNNING
            return now.lease_until is not None and now.lease_until > first + timedelta(seconds=1)

        await until(kept, what="a lease longer than it was")
        assert ((await run(sessions, run_id)).progress or "").startswith("under way for")

    await work
    assert (await run(sessions, run_id)).state == RunState.SUCCEEDED


async def test_a_worker_that_lost_its_run_breaks_off_on_the_server_too(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id, metrics = await queued_run(sessions), WorkerMetrics()
    worker = builder(engine, lease=0.6, metrics=metrics)

    async with held_up(engine), building(engine, worker, BuildReport(run_id=run_id)) as work:
        async with sessions.begin() as session:
            later = await clock.now(session) + timedelta(hours=1)
            assert len(await leases.reap(session, now=later, limit=1)) == 1
        await work
        assert await builds_waiting(engine) == 0

    assert (await run(sessions, run_id)).state == RunState.PENDING
    assert await built_day(sessions) is None
    assert outcomes(metrics.registry) == {"lost": 1}


async def test_a_run_that_is_given_back_is_free_at_once_and_has_lost_no_attempt(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id, worker = await queued_run(sessions), builder(engine)

    async with held_up(engine), building(engine, worker, BuildReport(run_id=run_id)) as work:
        await worker.leave()
        with pytest.raises(Interrupted):
            await work
        assert await builds_waiting(engine) == 0

    released = await run(sessions, run_id)
    assert (released.state, released.attempt) == (RunState.PENDING, 0)
    async with sessions() as session:
        assert released.available_at <= await clock.now(session)


async def test_a_worker_that_is_told_to_stop_finishes_but_begins_nothing(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id, worker = await queued_run(sessions), builder(engine)

    async with held_up(engine), building(engine, worker, BuildReport(run_id=run_id)) as work:
        worker.stop()
        with pytest.raises(Interrupted):
            await worker.build(BuildReport(run_id=uuid4()))
    await work

    assert (await run(sessions, run_id)).state == RunState.SUCCEEDED


async def test_a_message_waits_with_its_worker_for_a_database_that_is_away(
    postgres_url: str, sessions: Sessions
) -> None:
    run_id = await queued_run(sessions)
    async with Proxy(postgres_url) as proxy:
        engine = create_engine(proxy.url, application="tests", pool_size=3)
        await proxy.cut()
        work = asyncio.create_task(builder(engine).build(BuildReport(run_id=run_id)))
        done, _ = await asyncio.wait({work}, timeout=0.5)
        assert not done
        await proxy.mend()
        await asyncio.wait_for(work, timeout=5)
        await engine.dispose()

    assert (await run(sessions, run_id)).state == RunState.SUCCEEDED


async def test_a_database_that_goes_for_good_leaves_the_run_to_its_lease(
    postgres_url: str, engine: AsyncEngine, sessions: Sessions
) -> None:
    run_id = await queued_run(sessions)
    async with Proxy(postgres_url) as proxy:
        far = create_engine(proxy.url, application="tests", pool_size=3)
        async with (
            held_up(engine),
            building(engine, builder(far), BuildReport(run_id=run_id)) as work,
        ):
            await proxy.cut()
            await asyncio.wait_for(work, timeout=5)
        await far.dispose()

    left = await run(sessions, run_id)
    assert (left.state, left.error_code) == (RunState.RUNNING, None)


async def test_a_run_that_somebody_holds_keeps_no_place_from_others(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """Nor does a message that finds nothing else end, before that run can be had."""
    done = await queued_run(sessions)
    worker = builder(engine)
    await worker.build(BuildReport(run_id=done))
    held = await queued_run(sessions, day=DAY + timedelta(days=1))
    async with sessions.begin() as holder:
        await holder.get(ReportRun, held, with_for_update=True)
        left_over = asyncio.create_task(worker.build(BuildReport(run_id=done)))
        nightly = await queued_run(sessions, day=DAY + timedelta(days=2))
        await until(lambda: _succeeded(sessions, nightly), what="building what nobody holds")
        assert (await run(sessions, held)).state is RunState.QUEUED
        if left_over.done():
            # It stood for the nightly run; that one's own message comes next.
            left_over = asyncio.create_task(worker.build(BuildReport(run_id=nightly)))
    await left_over

    found = await run(sessions, held)
    assert found.state is RunState.SUCCEEDED
    assert found.started_at is not None


async def test_a_worker_that_only_looks_at_what_is_held_leaves_at_once(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    held = await queued_run(sessions)
    worker = builder(engine)
    async with sessions.begin() as holder:
        await holder.get(ReportRun, held, with_for_update=True)
        looking = asyncio.create_task(worker.build(BuildReport(run_id=held)))
        await asyncio.sleep(0)
        await worker.leave()

        with pytest.raises(Interrupted):
            await looking


async def _succeeded(sessions: Sessions, run_id: UUID) -> bool:
    return (await run(sessions, run_id)).state is RunState.SUCCEEDED
