"""The scheduler as the process that it is, with a real RabbitMQ."""

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
from tests.integration.scheduler.loops import Loops
from tests.support.databases import fresh_database
from tests.support.logs import health_url, until_logged
from tests.support.processes import Service
from tests.support.proxy import Proxy
from tests.support.runs import everything
from tests.support.waiting import until

COMMANDS = {
    "daybook-scheduler": ["daybook-scheduler"],
    "taskiq scheduler": ["taskiq", "scheduler", "daybook_scheduler.main:create_scheduler"],
}


class Messages:
    """The messages that RabbitMQ holds for the workers."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel) -> None:
        self._channel = channel
        self.taken: list[UUID] = []

    async def are(self, *run_ids: UUID) -> None:
        """Wait until these have come, and no others."""

        async def came() -> bool:
            queue = await self._channel.get_queue(RUNS)
            while (message := await queue.get(fail=False)) is not None:
                await message.ack()
                self.taken.append(UUID(json.loads(message.body)["args"][0]["run_id"]))
            return sorted(self.taken) == sorted(run_ids)

        await until(came, seconds=20, what=f"messages about {run_ids}, instead of {self.taken},")


@pytest.fixture
async def messages(rabbitmq_url: str) -> AsyncIterator[Messages]:
    """Return RabbitMQ with an empty queue of runs."""
    connection = await aio_pika.connect(rabbitmq_url)
    channel = await connection.channel()
    await (await declare_run_queues(channel)).purge()
    yield Messages(channel)
    await connection.close()


@contextmanager
def service(
    folder: Path, command: str, *, postgres_url: str, rabbitmq_url: str, **more: str
) -> Iterator[Service]:
    environment = {
        "DAYBOOK_DATABASE_URL": postgres_url,
        "DAYBOOK_BROKER_URL": rabbitmq_url,
        **{f"DAYBOOK_{name.upper()}": value for name, value in more.items()},
    }
    log = folder / f"{len(list(folder.iterdir()))}.log"
    with Service(COMMANDS[command], environment=environment, log=log) as running:
        yield running


@pytest.mark.rabbitmq
async def test_either_command_alone_and_both_together_send_each_run_once(
    loops: Loops, messages: Messages, postgres_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    async def there(number: int) -> list[UUID]:
        async def found() -> list[UUID]:
            runs = await everything(loops.sessions)
            return [run.id for run in runs] if len(runs) == number else []

        return await until(found, what=f"{number} runs")

    urls = {"postgres_url": postgres_url, "rabbitmq_url": rabbitmq_url}
    with service(tmp_path, "taskiq scheduler", **urls) as theirs:
        await until_logged(theirs, "daily schedule")
        await loops.make_due()
        await messages.are(*await there(1))
        with service(tmp_path, "daybook-scheduler", **urls) as ours:
            await until_logged(ours, "daily schedule")
            await loops.make_due(nights=7)
            # The last of the seven is the fire that has been; it is not repeated.
            await messages.are(*await there(7))
            assert await asyncio.to_thread(theirs.stop) == 0
            await loops.execute("DELETE FROM report_runs")
            messages.taken.clear()
            await loops.make_due()
            await messages.are(*await there(1))
            assert await asyncio.to_thread(ours.stop) == 0

    assert {run.state for run in await everything(loops.sessions)} == {RunState.QUEUED}
    assert "Traceback" not in ours.said() + theirs.said()


@pytest.mark.rabbitmq
async def test_a_scheduler_that_is_killed_loses_nothing_to_the_next(
    loops: Loops, messages: Messages, postgres_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    async def taken() -> bool:
        return any(run.state == RunState.QUEUED for run in await everything(loops.sessions))

    async with Proxy(rabbitmq_url) as proxy:
        with service(
            tmp_path, "daybook-scheduler", postgres_url=postgres_url, rabbitmq_url=proxy.url
        ) as dying:
            await until_logged(dying, "daily schedule")
            # It takes the run, and hangs on the way to RabbitMQ.
            proxy.swallow()
            await loops.make_due()
            await until(taken, what="taking the run")
            dying.kill()
    await loops.execute("UPDATE report_runs SET lease_until = now() - interval '1 second'")
    (run,) = await everything(loops.sessions)

    async with sending(rabbitmq_url) as queue, loops.running(queue):
        await messages.are(run.id)


@pytest.mark.rabbitmq
async def test_a_run_that_is_due_while_rabbitmq_is_away_is_sent_when_it_is_back(
    loops: Loops, messages: Messages, rabbitmq_url: str
) -> None:
    async def given_back() -> bool:
        runs = await everything(loops.sessions)
        return any(r.state == RunState.PENDING and r.scheduled_for != r.available_at for r in runs)

    async with Proxy(rabbitmq_url) as proxy:
        await proxy.cut()
        async with sending(proxy.url) as queue, loops.running(queue):
            await loops.make_due()
            await until(given_back, what="giving the run back")
            await proxy.mend()
            (run,) = await everything(loops.sessions)
            await messages.are(run.id)


async def get(running: Service, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=await health_url(running)) as client:
        return await client.get(path)


async def test_it_says_how_it_is_and_an_interrupt_ends_it_in_good_order(
    loops: Loops, postgres_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    with service(
        tmp_path, "daybook-scheduler", postgres_url=postgres_url, rabbitmq_url=rabbitmq_url
    ) as running:
        await until_logged(running, "daily schedule")
        health, ready, metrics = [
            await get(running, path) for path in ("/healthz", "/readyz", "/metrics")
        ]
        running.send(signal.SIGINT)
        assert await asyncio.to_thread(running.wait) == 0

    assert health.json() == {"status": "ok"}
    assert ready.json()["checks"] == {"postgres": "ok", "broker": "ok", "daily_schedule": "ok"}
    assert 'daybook_scheduler_ticks_total{outcome="ok",step="materialise"}' in metrics.text


async def test_it_is_not_ready_before_a_midnight_would_be_noticed(
    postgres_server_url: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    async with fresh_database(
        postgres_server_url, name=f"daybook_test_{os.getpid()}_not_migrated"
    ) as url:
        with service(
            tmp_path, "daybook-scheduler", postgres_url=url, rabbitmq_url=rabbitmq_url
        ) as running:
            await until_logged(
                running, "the database lacks a table or column; run `daybook migrate`"
            )
            before = await get(running, "/readyz")
            await migrate.upgrade(url)
            await until_logged(running, "daily schedule")
            after = await get(running, "/readyz")
            assert await asyncio.to_thread(running.stop) == 0

    assert before.status_code == 503
    assert before.json()["checks"] == {
        "postgres": "ok",
        "broker": "ok",
        "daily_schedule": "the daily schedule is not in the database yet",
    }
    assert after.status_code == 200


def test_wrong_settings_end_it_with_each_name_and_what_was_expected(tmp_path: Path) -> None:
    with service(
        tmp_path,
        "taskiq scheduler",
        postgres_url="mysql://somewhere/else",
        rabbitmq_url="amqp://guest:secret@127.0.0.1/",
        daily_cron="0 25 * * *",
        timezone="Mars/Olympus",
        reconcile_days="99",
    ) as running:
        assert running.wait() == 2

    said = running.said()
    assert "DAYBOOK_DATABASE_URL: expected postgresql://user:password@host:5432/database" in said
    assert "DAYBOOK_DAILY_CRON: hour: 25 is not 0-23 (position 3)" in said
    assert "DAYBOOK_TIMEZONE: expected an IANA time zone such as UTC or Europe/Berlin" in said
    assert "DAYBOOK_RECONCILE_DAYS: Input should be less than or equal to 31" in said
    assert "secret" not in said
