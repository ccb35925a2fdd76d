"""Outages of RabbitMQ, Postgres and Redis: work is delayed and none is lost."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from daybook_domain.reports.business_day import business_day
from daybook_domain.runs.models import RunState
from daybook_embedded.data_directory import scratch_folder
from daybook_embedded.postgres import PostgresServer
from daybook_embedded.rabbitmq import RabbitServer
from daybook_embedded.valkey import ValkeyServer
from tests.e2e.blocked_builds import DAY, blocked_build, prepare_day, start_blocked_run
from tests.e2e.stack import Stack, running_stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180)]


async def test_a_fire_during_a_rabbitmq_outage_runs_after_it(stack: Stack) -> None:
    span = business_day(DAY, timezone=stack.timezone)
    await stack.add_orders(span.starts_at)
    await stack.clock.set(span.ends_at - timedelta(minutes=1))
    scheduler, worker = await asyncio.gather(stack.start_scheduler(), stack.start_worker())

    await asyncio.to_thread(stack.rabbitmq.stop)
    await stack.clock.set(span.ends_at + timedelta(seconds=1))

    async def fire_recorded() -> bool:
        return bool(await stack.list_runs())

    await wait_until(fire_recorded, what="the fire recorded during the outage")
    assert await stack.find_day(DAY) is None
    await asyncio.to_thread(stack.rabbitmq.start)

    await stack.wait_until_sealed(DAY)
    (run,) = await stack.list_runs()
    assert run.state == RunState.SUCCEEDED
    assert scheduler.running
    assert worker.running


async def test_services_survive_a_restart_of_postgres(stack: Stack) -> None:
    span = business_day(DAY, timezone=stack.timezone)
    await stack.add_orders(span.starts_at)
    await stack.clock.set(span.ends_at - timedelta(minutes=1))
    scheduler, worker, (api, _) = await asyncio.gather(
        stack.start_scheduler(), stack.start_worker(), stack.start_api()
    )

    await asyncio.to_thread(stack.postgres.stop)
    await asyncio.to_thread(stack.postgres.start)
    await stack.clock.set(span.ends_at + timedelta(seconds=1))

    await stack.wait_until_sealed(DAY)
    assert [run.state for run in await stack.list_runs()] == [RunState.SUCCEEDED]
    assert all(service.running for service in (scheduler, worker, api))


async def test_a_build_that_a_restart_of_postgres_interrupts_is_done_again(stack: Stack) -> None:
    await prepare_day(stack)
    async with blocked_build(stack):
        run_id, worker = await start_blocked_run(stack)
        await asyncio.to_thread(stack.postgres.stop)
        await asyncio.to_thread(stack.postgres.start)

    await stack.wait_for_state(run_id, RunState.SUCCEEDED, seconds=60)

    await assert_built_once(stack)
    assert worker.running


async def test_a_build_goes_on_while_rabbitmq_restarts(stack: Stack) -> None:
    await prepare_day(stack)
    async with blocked_build(stack):
        run_id, worker = await start_blocked_run(stack)
        await asyncio.to_thread(stack.rabbitmq.stop)
        await asyncio.to_thread(stack.rabbitmq.start)

    run = await stack.wait_for_state(run_id, RunState.SUCCEEDED, seconds=60)

    assert run.attempt == 1
    await assert_built_once(stack)
    assert worker.running


async def assert_built_once(stack: Stack) -> None:
    """Require one revision of the day, which equals its orders."""
    day = await stack.find_day(DAY)
    assert day is not None
    assert day.revision == 1
    assert await stack.read_report(DAY) == await stack.compute_expected_report(DAY)


async def test_losing_redis_changes_nothing(
    private_postgres: PostgresServer, private_rabbitmq: RabbitServer, tmp_path: Path
) -> None:
    with scratch_folder() as folder, ValkeyServer(folder / "valkey") as valkey:
        async with running_stack(
            postgres=private_postgres,
            rabbitmq=private_rabbitmq,
            redis_url=valkey.url,
            folder=tmp_path,
            name="e2e_without_redis",
        ) as stack:
            span = business_day(DAY, timezone=stack.timezone)
            await stack.add_orders(span.starts_at)
            await stack.clock.set(span.ends_at - timedelta(minutes=1))
            await asyncio.gather(stack.start_scheduler(), stack.start_worker())
            await asyncio.to_thread(valkey.stop)
            await stack.clock.set(span.ends_at + timedelta(seconds=1))

            await stack.wait_until_sealed(DAY)

            assert [run.state for run in await stack.list_runs()] == [RunState.SUCCEEDED]
