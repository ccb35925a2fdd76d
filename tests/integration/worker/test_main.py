"""Does the real process start, stop and survive as its operators expect?"""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs.models import RunState, RunTrigger
from daybook_domain.runs.tasks import BUILD_REPORT, BuildReport
from daybook_platform.postgres.engine import Sessions
from daybook_platform.rabbitmq.topology import DEAD_LETTERS, RUNS
from daybook_platform.taskiq_broker import TaskIQQueue
from tests.integration.platform.notes import sending
from tests.integration.platform.rabbitmq.rabbit import Rabbit, deaths
from tests.integration.worker.runs import (
    DAY,
    builds_waiting,
    built_day,
    failing,
    held_up,
    queued_run,
    run,
)
from tests.support.logs import health_url, logged
from tests.support.processes import Service
from tests.support.waiting import until

# Far longer than any wait of these tests: who waits it out fails them.
LONG_DRAIN_SECONDS = "3600"

pytestmark = [pytest.mark.rabbitmq, pytest.mark.usefixtures("clean")]

Start = Callable[..., Service]

TASKIQ = ("taskiq", "worker", "daybook_worker.main:create_worker", "--workers", "1")


@pytest.fixture
async def queue(rabbit: Rabbit) -> AsyncIterator[TaskIQQueue]:
    async with sending(rabbit.url) as queue:
        yield queue


@pytest.fixture
def start(rabbit: Rabbit, postgres_url: str, tmp_path: Path) -> Iterator[Start]:
    """Return a way to start workers, which end with the test."""
    with ExitStack() as stack:

        def start(*command: str, **environment: str) -> Service:
            log = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
            service = Service(
                command or ("daybook-worker", "reports"),
                environment={
                    "DAYBOOK_DATABASE_URL": postgres_url,
                    "DAYBOOK_BROKER_URL": rabbit.url,
                    **environment,
                },
                log=log,
            )
            return stack.enter_context(service)

        yield start


async def ready(worker: Service) -> str:
    url = await health_url(worker)

    async def answers() -> bool:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{url}/readyz")).status_code == 200

    await until(answers, what="readiness")
    return url


async def waiting(engine: AsyncEngine) -> bool:
    return await builds_waiting(engine) == 1


async def stopped(worker: Service) -> int:
    return await asyncio.to_thread(worker.wait)


async def test_a_run_becomes_a_report_and_an_idle_worker_stops_at_once(
    start: Start, queue: TaskIQQueue, sessions: Sessions, rabbit: Rabbit
) -> None:
    worker = start(DAYBOOK_DRAIN_SECONDS=LONG_DRAIN_SECONDS)
    url = await ready(worker)
    run_id = await queued_run(sessions)

    await queue.send(BUILD_REPORT, BuildReport(run_id=run_id))

    await until(lambda: _is(sessions, run_id, RunState.SUCCEEDED))
    assert await built_day(sessions) is not None
    assert await rabbit.depth() == 0

    async def counted() -> bool:
        async with httpx.AsyncClient() as client:
            metrics = await client.get(f"{url}/metrics")
        return 'daybook_runs_finished_total{outcome="succeeded"} 1.0' in metrics.text

    await until(counted)

    worker.send(signal.SIGTERM)
    assert await stopped(worker) == 0


async def test_a_nightly_run_is_built_while_messages_of_backfills_fill_the_worker(
    start: Start, queue: TaskIQQueue, sessions: Sessions, engine: AsyncEngine
) -> None:
    worker = start(DAYBOOK_CONCURRENCY="2")
    await ready(worker)
    days = [DAY + timedelta(days=n) for n in range(3)]
    async with held_up(engine, day=days[0]), held_up(engine, day=days[1]):
        backfills = [
            await queued_run(sessions, day=day, trigger=RunTrigger.BACKFILL) for day in days[:2]
        ]
        for each in backfills:
            await queue.send(BUILD_REPORT, BuildReport(run_id=each))
        await until(lambda: waiting(engine))
        nightly = await queued_run(sessions, day=days[2])
        await queue.send(BUILD_REPORT, BuildReport(run_id=nightly))

        await until(lambda: _is(sessions, nightly, RunState.SUCCEEDED))

        assert await builds_waiting(engine) == 1
    for each in backfills:
        await until(partial(_is, sessions, each, RunState.SUCCEEDED))


async def test_a_busy_worker_takes_nothing_new_and_finishes(
    start: Start, queue: TaskIQQueue, sessions: Sessions, engine: AsyncEngine, rabbit: Rabbit
) -> None:
    worker = start(DAYBOOK_CONCURRENCY="1")
    await ready(worker)
    async with held_up(engine):
        first = await queued_run(sessions)
        await queue.send(BUILD_REPORT, BuildReport(run_id=first))
        await until(lambda: waiting(engine))
        second = await queued_run(sessions)
        await queue.send(BUILD_REPORT, BuildReport(run_id=second))
        worker.send(signal.SIGTERM)
        await until(lambda: _draining(worker))

    assert await stopped(worker) == 0
    assert (await run(sessions, first)).state == RunState.SUCCEEDED
    assert (await run(sessions, second)).state == RunState.QUEUED
    await until(lambda: _depth(rabbit, 1), what="the second message's return")


async def test_a_build_that_does_not_finish_in_time_is_given_back(
    start: Start, queue: TaskIQQueue, sessions: Sessions, engine: AsyncEngine
) -> None:
    worker = start(DAYBOOK_DRAIN_SECONDS="0.3")
    await ready(worker)
    run_id = await queued_run(sessions)
    async with held_up(engine):
        await queue.send(BUILD_REPORT, BuildReport(run_id=run_id))
        await until(lambda: waiting(engine))
        worker.send(signal.SIGTERM)
        assert await stopped(worker) == 0

    assert logged(worker, "draining")["seconds"] == 0.3
    assert logged(worker, "breaking off what is not finished")
    released = await run(sessions, run_id)
    assert (released.state, released.attempt) == (RunState.PENDING, 0)


async def test_a_second_signal_does_not_wait_for_the_drain(
    start: Start, queue: TaskIQQueue, sessions: Sessions, engine: AsyncEngine
) -> None:
    worker = start(DAYBOOK_DRAIN_SECONDS=LONG_DRAIN_SECONDS)
    await ready(worker)
    run_id = await queued_run(sessions)
    async with held_up(engine):
        await queue.send(BUILD_REPORT, BuildReport(run_id=run_id))
        await until(lambda: waiting(engine))
        worker.send(signal.SIGINT)
        await until(lambda: _draining(worker))
        worker.send(signal.SIGINT)
        assert await stopped(worker) == 0

    assert (await run(sessions, run_id)).state == RunState.PENDING


async def test_a_message_is_not_gone_before_its_report_is_committed(
    start: Start, queue: TaskIQQueue, sessions: Sessions, engine: AsyncEngine, rabbit: Rabbit
) -> None:
    worker = start()
    await ready(worker)
    run_id = await queued_run(sessions)
    async with held_up(engine):
        await queue.send(BUILD_REPORT, BuildReport(run_id=run_id))
        await until(lambda: waiting(engine))
        worker.kill()

    await until(lambda: _depth(rabbit, 1), what="the message's return")
    assert await built_day(sessions) is None


@pytest.mark.parametrize("command", [(), TASKIQ], ids=["daybook-worker", "taskiq worker"])
async def test_both_commands_build_and_keep_what_they_cannot(
    start: Start,
    queue: TaskIQQueue,
    sessions: Sessions,
    engine: AsyncEngine,
    rabbit: Rabbit,
    command: tuple[str, ...],
) -> None:
    worker = start(*command)

    await rabbit.publish(b"nonsense")
    assert deaths(await rabbit.dead_letter()) == [(RUNS, "rejected", 1)]

    buggy = await queued_run(sessions)
    async with failing(engine, sqlstate="P0001"):
        await queue.send(BUILD_REPORT, BuildReport(run_id=buggy))
        assert str(buggy) in (await rabbit.dead_letter()).body.decode()
    assert (await run(sessions, buggy)).error_detail is not None

    other = DAY.replace(day=2)
    good = await queued_run(sessions, day=other)
    await queue.send(BUILD_REPORT, BuildReport(run_id=good))
    await until(lambda: _is(sessions, good, RunState.SUCCEEDED))
    worker.send(signal.SIGTERM)
    assert await stopped(worker) == 0
    assert (await rabbit.depth(RUNS), await rabbit.depth(DEAD_LETTERS)) == (0, 0)


async def test_it_is_alive_but_not_ready_without_its_servers(start: Start) -> None:
    worker = start(
        DAYBOOK_BROKER_URL="amqp://guest:guest@127.0.0.1:1/",
        DAYBOOK_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nowhere",
        DAYBOOK_DRAIN_SECONDS=LONG_DRAIN_SECONDS,
    )
    url = await health_url(worker)

    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{url}/healthz")).status_code == 200
        answer = await client.get(f"{url}/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"] == {
        "database": "ConnectionRefusedError",
        "broker": "not consuming from RabbitMQ",
    }
    worker.send(signal.SIGTERM)
    assert await stopped(worker) == 0


async def test_what_is_wrong_with_its_settings_ends_it_at_once_by_name(start: Start) -> None:
    worker = start(DAYBOOK_CONCURRENCY="0", DAYBOOK_DATABASE_URL="mysql://hunter2@localhost/x")

    assert await stopped(worker) == 2
    assert "DAYBOOK_CONCURRENCY: " in worker.said()
    assert "DAYBOOK_DATABASE_URL: expected postgresql://" in worker.said()
    assert "hunter2" not in worker.said()
    assert "Traceback" not in worker.said()


async def test_a_busy_health_port_ends_it_by_name(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        worker = start(DAYBOOK_HEALTH_PORT=str(busy.getsockname()[1]))
        assert await stopped(worker) == 2

    assert "DAYBOOK_HEALTH_PORT" in worker.said()
    assert "Traceback" not in worker.said()


async def _is(sessions: Sessions, run_id: UUID, state: RunState) -> bool:
    return (await run(sessions, run_id)).state == state


async def _draining(worker: Service) -> bool:
    return bool(logged(worker, "draining"))


async def _depth(rabbit: Rabbit, messages: int) -> bool:
    return await rabbit.depth() == messages
