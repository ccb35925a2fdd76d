"""What becomes of the work when RabbitMQ, Postgres or Redis goes away for a while?"""

import asyncio
from datetime import date, timedelta
from pathlib import Path

import pytest

from daybook_domain.reports.business_day import business_day
from daybook_domain.runs.models import RunState
from daybook_embedded.data_directory import scratch_folder
from daybook_embedded.postgres import PostgresServer
from daybook_embedded.rabbitmq import RabbitServer
from daybook_embedded.valkey import ValkeyServer
from tests.e2e.stack import Stack, running
from tests.support.waiting import until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180)]

DAY = date(2026, 11, 23)


async def test_a_fire_while_rabbitmq_is_away_runs_after_its_return(stack: Stack) -> None:
    span = business_day(DAY, timezone=stack.timezone)
    await stack.add_orders(span.starts_at)
    await stack.clock.set(span.ends_at - timedelta(minutes=1))
    scheduler, worker = await asyncio.gather(stack.scheduler(), stack.worker())

    await asyncio.to_thread(stack.rabbitmq.stop)
    await stack.clock.set(span.ends_at + timedelta(seconds=1))

    async def materialised() -> bool:
        return bool(await stack.runs())

    await until(materialised, what="the fire written down while RabbitMQ is away")
    assert await stack.day(DAY) is None
    await asyncio.to_thread(stack.rabbitmq.start)

    await stack.until_sealed(DAY)
    (run,) = await stack.runs()
    assert run.state == RunState.SUCCEEDED
    assert scheduler.running
    assert worker.running


async def test_services_outlive_a_restart_of_postgres(stack: Stack) -> None:
    span = business_day(DAY, timezone=stack.timezone)
    await stack.add_orders(span.starts_at)
    await stack.clock.set(span.ends_at - timedelta(minutes=1))
    scheduler, worker, (api, _) = await asyncio.gather(
        stack.scheduler(), stack.worker(), stack.api()
    )

    await asyncio.to_thread(stack.postgres.stop)
    await asyncio.to_thread(stack.postgres.start)
    await stack.clock.set(span.ends_at + timedelta(seconds=1))

    await stack.until_sealed(DAY)
    assert [run.state for run in await stack.runs()] == [RunState.SUCCEEDED]
    assert all(service.running for service in (scheduler, worker, api))


async def test_losing_redis_changes_nothing(
    private_postgres: PostgresServer, private_rabbitmq: RabbitServer, tmp_path: Path
) -> None:
    with scratch_folder() as folder, ValkeyServer(folder / "valkey") as valkey:
        async with running(
            postgres=private_postgres,
            rabbitmq=private_rabbitmq,
            redis_url=valkey.url,
            folder=tmp_path,
            name="e2e_without_redis",
        ) as stack:
            span = business_day(DAY, timezone=stack.timezone)
            await stack.add_orders(span.starts_at)
            await stack.clock.set(span.ends_at - timedelta(minutes=1))
            await asyncio.gather(stack.scheduler(), stack.worker())
            await asyncio.to_thread(valkey.stop)
            await stack.clock.set(span.ends_at + timedelta(seconds=1))

            await stack.until_sealed(DAY)

            assert [run.state for run in await stack.runs()] == [RunState.SUCCEEDED]
