"""The process of the scheduler, with a real RabbitMQ."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import aio_pika
import httpx
import pytest

from daybook_domain.runs.models import RunState
from daybook_platform.postgres import migrate
from daybook_platform.rabbitmq.topology import RUNS, declare_run_queues
from tests.integration.platform.notes import sending
from tests.integration.scheduler.loops import LoopFactory
from tests.support.factories.runs import list_all_runs
from tests.support.postgres import temporary_database
from tests.support.processes import Service, wait_for_health_url, wait_for_log_entry
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

COMMANDS = {
    "daybook-scheduler": ["daybook-scheduler"],
    "taskiq scheduler": ["taskiq", "scheduler", "daybook_scheduler.main:create_scheduler"],
}


class RunMessages:
    """The run messages in RabbitMQ, which this consumes."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel) -> None:
        self._channel = channel
        self.run_ids: list[UUID] = []

    async def wait_until_received(self, *run_ids: UUID) -> None:
        """Wait until exactly one message of each of these runs was received."""

        async def is_received() -> bool:
            queue = await self._channel.get_queue(RUNS)
            while (message := await queue.get(fail=False)) is not None:
                await message.ack()
                self.run_ids.append(UUID(json.loads(message.body)["args"][0]["run_id"]))
            return sorted(self.run_ids) == sorted(run_ids)

        await wait_until(
            is_received, seconds=20, what=f"messages about {run_ids}, instead of {self.run_ids},"
        )


@pytest.fixture
async def messages(rabbitmq_url: str) -> AsyncIterator[RunMessages]:
    """Return the run messages of RabbitMQ, after purging the queue."""
    connection = await aio_pika.connect(rabbitmq_url)
    channel = await connection.channel()
    await (await declare_run_queues(channel)).purge()
    yield RunMessages(channel)
    await connection.close()


@contextmanager
def running_scheduler(
    folder: Path, command: str, *, postgres_url: str, rabbitmq_url: str, **settings: str
) -> Iterator[Service]:
    environment = {
        "DAYBOOK_DATABASE_URL": postgres_url,
        "DAYBOOK_BROKER_URL": rabbitmq_url,
        **{f"DAYBOOK_{name.upper()}": value for name, value in settings.items()},
    }
    log = folder / f"{len(list(folder.iterdir()))}.log"
    with Service(COMMANDS[command], environment=environment, log=log) as scheduler:
        yield scheduler


@pytest.mark.rabbitmq
async def test_each_command_alone_and_both_together_send_each_run_once(
    loops: LoopFactory, messages: RunMessages, postgres_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    async def list_run_ids(number: int) -> list[UUID]:
        async def find_run_ids() -> list[UUID]:
            runs = await list_all_runs(loops.sessions)
            return [run.id for run in runs] if len(runs) == number else []

        return await wait_until(find_run_ids, what=f"{number} runs")

    urls = {"postgres_url": postgres_url, "rabbitmq_url": rabbitmq_url}
    with running_scheduler(tmp_path, "taskiq scheduler", **urls) as taskiq_scheduler:
        await wait_for_log_entry(taskiq_scheduler, "daily schedule defined")
        await loops.make_daily_schedule_due()
        await messages.wait_until_received(*await list_run_ids(1))
        with running_scheduler(tmp_path, "daybook-scheduler", **urls) as scheduler:
            await wait_for_log_entry(scheduler, "daily schedule defined")
            await loops.make_daily_schedule_due(nights=7)
            # The latest of the seven fires was sent before; it is not sent again.
            await messages.wait_until_received(*await list_run_ids(7))
            assert await asyncio.to_thread(taskiq_scheduler.stop) == 0
            await loops.execute("DELETE FROM report_runs")
            messages.run_ids.clear()
            await loops.make_daily_schedule_due()
            await messages.wait_until_received(*await list_run_ids(1))
            assert await asyncio.to_thread(scheduler.stop) == 0

    assert {run.state for run in await list_all_runs(loops.sessions)} == {RunState.QUEUED}
    assert "Traceback" not in scheduler.read_log() + taskiq_scheduler.read_log()


@pytest.mark.rabbitmq
async def test_a_run_claimed_by_a_scheduler_that_is_killed_is_sent_by_another(
    loops: LoopFactory, messages: RunMessages, postgres_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    async def is_claimed() -> bool:
        return any(run.state == RunState.QUEUED for run in await list_all_runs(loops.sessions))

    async with Proxy(rabbitmq_url) as proxy:
        with running_scheduler(
            tmp_path, "daybook-scheduler", postgres_url=postgres_url, rabbitmq_url=proxy.url
        ) as killed:
            await wait_for_log_entry(killed, "daily schedule defined")
            # It claims the run, and RabbitMQ does not answer.
            proxy.stall()
            await loops.make_daily_schedule_due()
            await wait_until(is_claimed, what="the claim of the run")
            killed.kill()
    await loops.execute("UPDATE report_runs SET lease_until = now() - interval '1 second'")
    (run,) = await list_all_runs(loops.sessions)

    async with sending(rabbitmq_url) as queue, loops.running(queue):
        await messages.wait_until_received(run.id)


@pytest.mark.rabbitmq
async def test_a_run_that_is_due_during_an_outage_of_rabbitmq_is_sent_after_it(
    loops: LoopFactory, messages: RunMessages, rabbitmq_url: str
) -> None:
    async def is_returned() -> bool:
        runs = await list_all_runs(loops.sessions)
        return any(r.state == RunState.PENDING and r.scheduled_for != r.available_at for r in runs)

    async with Proxy(rabbitmq_url) as proxy:
        await proxy.cut()
        async with sending(proxy.url) as queue, loops.running(queue):
            await loops.make_daily_schedule_due()
            await wait_until(is_returned, what="the run to be pending again")
            await proxy.restore()
            (run,) = await list_all_runs(loops.sessions)
            await messages.wait_until_received(run.id)


async def get(scheduler: Service, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=await wait_for_health_url(scheduler)) as client:
        return await client.get(path)


async def test_the_health_endpoints_respond_and_an_interrupt_ends_the_scheduler_gracefully(
    loops: LoopFactory, postgres_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    with running_scheduler(
        tmp_path, "daybook-scheduler", postgres_url=postgres_url, rabbitmq_url=rabbitmq_url
    ) as scheduler:
        await wait_for_log_entry(scheduler, "daily schedule defined")
        health, ready, metrics = [
            await get(scheduler, path) for path in ("/healthz", "/readyz", "/metrics")
        ]
        scheduler.send(signal.SIGINT)
        assert await asyncio.to_thread(scheduler.wait) == 0

    assert health.json() == {"status": "ok"}
    assert ready.json()["checks"] == {
        "postgres": "ok",
        "timezone": "ok",
        "broker": "ok",
        "daily_schedule": "ok",
    }
    assert 'daybook_scheduler_ticks_total{outcome="ok",step="materialise"}' in metrics.text


async def test_a_scheduler_is_not_ready_before_the_daily_schedule_is_defined(
    postgres_server_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    async with temporary_database(
        postgres_server_url, name=f"daybook_test_{os.getpid()}_not_migrated"
    ) as url:
        with running_scheduler(
            tmp_path, "daybook-scheduler", postgres_url=url, rabbitmq_url=rabbitmq_url
        ) as scheduler:
            await wait_for_log_entry(
                scheduler, "a table or column is missing in the database; run `daybook migrate`"
            )
            before = await get(scheduler, "/readyz")
            await migrate.upgrade(url)
            await wait_for_log_entry(scheduler, "daily schedule defined")
            after = await get(scheduler, "/readyz")
            assert await asyncio.to_thread(scheduler.stop) == 0

    assert before.status_code == 503
    assert before.json()["checks"] == {
        "postgres": "ok",
        "timezone": "DAYBOOK_TIMEZONE has not been compared with the database yet",
        "broker": "ok",
        "daily_schedule": "the daily schedule is not in the database yet",
    }
    assert after.status_code == 200


def test_invalid_settings_end_the_scheduler_with_the_name_and_expected_value_of_each(
    tmp_path: Path,
) -> None:
    with running_scheduler(
        tmp_path,
        "taskiq scheduler",
        postgres_url="mysql://somewhere/else",
        rabbitmq_url="amqp://guest:secret@127.0.0.1/",
        daily_cron="0 25 * * *",
        timezone="Mars/Olympus",
        reconcile_days="99",
    ) as scheduler:
        assert scheduler.wait() == 2

    output = scheduler.read_log()
    assert "DAYBOOK_DATABASE_URL: expected postgresql://user:password@host:5432/database" in output
    assert "DAYBOOK_DAILY_CRON: hour: 25 is not 0-23 (position 3)" in output
    assert "DAYBOOK_TIMEZONE: expected an IANA time zone such as UTC or Europe/Berlin" in output
    assert "DAYBOOK_RECONCILE_DAYS: Input should be less than or equal to 31" in output
    assert "secret" not in output
