"""Claims of runs: urgency, locked rows, and an unavailable database."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_domain.runs.tasks import BuildReport
from daybook_domain.tasks import Interrupted
from daybook_platform.postgres.engine import create_engine
from daybook_platform.postgres.sessions import Sessions
from tests.integration.worker.builders import blocked_build, create_builder
from tests.integration.worker.runs import (
    DAY,
    blocked_builds,
    count_blocked_builds,
    get_run,
    has_blocked_builds,
    has_state,
    queue_run,
)
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("clean")


async def test_a_nightly_run_is_built_while_backfills_wait_for_a_slot(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    first, second, third = (DAY + timedelta(days=n) for n in range(3))
    builder = create_builder(engine, concurrency=2)
    async with blocked_builds(engine, day=first), blocked_builds(engine, day=second):
        backfills = [
            await queue_run(sessions, day=day, trigger=RunTrigger.BACKFILL)
            for day in (first, second)
        ]
        async with blocked_build(engine, builder, BuildReport(run_id=backfills[0])) as one:
            other = asyncio.create_task(builder.build(BuildReport(run_id=backfills[1])))
            nightly = await queue_run(sessions, day=third)

            await asyncio.wait_for(other, timeout=20)

            assert (await get_run(sessions, nightly)).state is RunState.SUCCEEDED
            assert (await get_run(sessions, backfills[1])).state is RunState.QUEUED
            # Its message was used for the nightly run, whose message now stands for the backfill.
            other = asyncio.create_task(builder.build(BuildReport(run_id=nightly)))
    await asyncio.gather(one, other)

    runs = [await get_run(sessions, each) for each in backfills]
    assert [each.state for each in runs] == [RunState.SUCCEEDED] * 2


@pytest.mark.parametrize(("concurrency", "backfills"), [(1, 1), (2, 1), (4, 3)])
async def test_backfills_use_all_but_one_of_the_concurrent_builds(
    engine: AsyncEngine, sessions: Sessions, concurrency: int, backfills: int
) -> None:
    days = [DAY + timedelta(days=n) for n in range(concurrency)]
    builder = create_builder(engine, concurrency=concurrency)
    async with AsyncExitStack() as stack:
        for day in days:
            await stack.enter_async_context(blocked_builds(engine, day=day))
        ids = [await queue_run(sessions, day=day, trigger=RunTrigger.BACKFILL) for day in days]
        builds = [asyncio.create_task(builder.build(BuildReport(run_id=each))) for each in ids]
        await wait_until(lambda: has_blocked_builds(engine, backfills), what="the builds")
        nightly = await queue_run(sessions, day=DAY + timedelta(days=concurrency))
        if concurrency > 1:
            await wait_until(
                lambda: has_state(sessions, nightly, RunState.SUCCEEDED), what="the nightly run"
            )
        assert await count_blocked_builds(engine) == backfills
    await asyncio.gather(*builds, builder.build(BuildReport(run_id=nightly)))

    runs = [await get_run(sessions, each) for each in (*ids, nightly)]
    assert {each.state for each in runs} == {RunState.SUCCEEDED}


async def test_a_message_that_waits_for_a_slot_is_requeued_when_the_worker_stops(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    first, second = DAY, DAY + timedelta(days=1)
    builder = create_builder(engine, concurrency=2)
    async with blocked_builds(engine, day=first):
        ids = [
            await queue_run(sessions, day=day, trigger=RunTrigger.BACKFILL)
            for day in (first, second)
        ]
        async with blocked_build(engine, builder, BuildReport(run_id=ids[0])) as one:
            other = asyncio.create_task(builder.build(BuildReport(run_id=ids[1])))
            builder.stop()
            with pytest.raises(Interrupted):
                await other
    await one

    runs = [await get_run(sessions, each) for each in ids]
    assert [each.state for each in runs] == [RunState.SUCCEEDED, RunState.QUEUED]


async def test_a_message_stays_with_its_worker_while_the_database_is_unavailable(
    postgres_url: str, sessions: Sessions
) -> None:
    run_id = await queue_run(sessions)
    async with Proxy(postgres_url) as proxy:
        engine = create_engine(proxy.url, application="tests", pool_size=3)
        await proxy.cut()
        build = asyncio.create_task(create_builder(engine).build(BuildReport(run_id=run_id)))
        done, _ = await asyncio.wait({build}, timeout=0.5)
        assert not done
        await proxy.restore()
        await asyncio.wait_for(build, timeout=5)
        await engine.dispose()

    assert (await get_run(sessions, run_id)).state == RunState.SUCCEEDED


async def test_a_locked_run_does_not_block_the_build_of_another(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """The message of an ended run does not end either, while the only queued run is locked."""
    ended = await queue_run(sessions)
    builder = create_builder(engine)
    await builder.build(BuildReport(run_id=ended))
    locked = await queue_run(sessions, day=DAY + timedelta(days=1))
    async with sessions.begin() as other_transaction:
        await other_transaction.get(ReportRun, locked, with_for_update=True)
        build = asyncio.create_task(builder.build(BuildReport(run_id=ended)))
        nightly = await queue_run(sessions, day=DAY + timedelta(days=2))
        await wait_until(
            lambda: has_state(sessions, nightly, RunState.SUCCEEDED), what="the unlocked run"
        )
        assert (await get_run(sessions, locked)).state is RunState.QUEUED
        if build.done():
            # The message was used for the nightly run, whose own message is delivered next.
            build = asyncio.create_task(builder.build(BuildReport(run_id=nightly)))
    await build

    run = await get_run(sessions, locked)
    assert run.state is RunState.SUCCEEDED
    assert run.started_at is not None


async def test_a_message_that_waits_for_a_locked_run_is_requeued_when_the_worker_stops(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    locked = await queue_run(sessions)
    builder = create_builder(engine)
    async with sessions.begin() as other_transaction:
        await other_transaction.get(ReportRun, locked, with_for_update=True)
        build = asyncio.create_task(builder.build(BuildReport(run_id=locked)))
        await asyncio.sleep(0)
        await builder.interrupt_and_wait()

        with pytest.raises(Interrupted):
            await build
