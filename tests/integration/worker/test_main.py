"""The process of the role `reports`: start, stop, and behaviour on signals."""

import signal
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.runs.models import RunState, RunTrigger
from daybook_domain.runs.tasks import BUILD_REPORT, BuildReport
from daybook_platform.postgres.sessions import Sessions
from daybook_platform.rabbitmq.topology import DEAD_LETTERS, RUNS
from daybook_platform.taskiq_broker import TaskIQQueue
from tests.integration.platform.notes import sending
from tests.integration.worker.processes import StartWorker, wait_for_exit, wait_until_ready
from tests.integration.worker.runs import (
    DAY,
    blocked_builds,
    count_blocked_builds,
    failing_builds,
    find_report_day,
    get_run,
    has_blocked_builds,
    has_state,
    queue_run,
)
from tests.support.amqp import AmqpClient, list_deaths
from tests.support.processes import Service, find_log_entry, wait_for_health_url
from tests.support.waiting import wait_until

# Far longer than the timeouts of these tests: a worker that waits for it fails them.
LONG_DRAIN_SECONDS = "3600"

pytestmark = [pytest.mark.rabbitmq, pytest.mark.usefixtures("clean", "amqp")]

COMMANDS = {
    "daybook-worker": ("daybook-worker", "reports"),
    "taskiq worker": ("taskiq", "worker", "daybook_worker.main:create_worker", "--workers", "1"),
}


@pytest.fixture
async def queue(amqp: AmqpClient) -> AsyncIterator[TaskIQQueue]:
    """Return a queue that sends run messages."""
    async with sending(amqp.url) as queue:
        yield queue


async def test_a_run_is_built_and_an_idle_worker_stops_immediately(
    start_worker: StartWorker, queue: TaskIQQueue, sessions: Sessions, amqp: AmqpClient
) -> None:
    worker = start_worker("reports", DAYBOOK_DRAIN_SECONDS=LONG_DRAIN_SECONDS)
    url = await wait_until_ready(worker)
    run_id = await queue_run(sessions)

    await queue.send(BUILD_REPORT, BuildReport(run_id=run_id))

    await wait_until(lambda: has_state(sessions, run_id, RunState.SUCCEEDED))
    assert await find_report_day(sessions) is not None
    assert await amqp.depth() == 0

    async def is_counted() -> bool:
        async with httpx.AsyncClient() as client:
            metrics = await client.get(f"{url}/metrics")
        return 'daybook_runs_finished_total{outcome="succeeded"} 1.0' in metrics.text

    await wait_until(is_counted)

    worker.send(signal.SIGTERM)
    assert await wait_for_exit(worker) == 0


async def test_a_nightly_run_is_built_while_messages_of_backfills_use_up_the_prefetch(
    start_worker: StartWorker, queue: TaskIQQueue, sessions: Sessions, engine: AsyncEngine
) -> None:
    worker = start_worker("reports", DAYBOOK_CONCURRENCY="2")
    await wait_until_ready(worker)
    days = [DAY + timedelta(days=n) for n in range(3)]
    async with blocked_builds(engine, day=days[0]), blocked_builds(engine, day=days[1]):
        backfills = [
            await queue_run(sessions, day=day, trigger=RunTrigger.BACKFILL) for day in days[:2]
        ]
        for each in backfills:
            await queue.send(BUILD_REPORT, BuildReport(run_id=each))
        await wait_until(lambda: has_blocked_builds(engine, 1))
        nightly = await queue_run(sessions, day=days[2])
        await queue.send(BUILD_REPORT, BuildReport(run_id=nightly))

        await wait_until(lambda: has_state(sessions, nightly, RunState.SUCCEEDED))

        assert await count_blocked_builds(engine) == 1
    for each in backfills:
        await wait_until(partial(has_state, sessions, each, RunState.SUCCEEDED))


async def test_a_busy_worker_that_is_stopped_finishes_and_claims_no_other_run(
    start_worker: StartWorker,
    queue: TaskIQQueue,
    sessions: Sessions,
    engine: AsyncEngine,
    amqp: AmqpClient,
) -> None:
    worker = start_worker("reports", DAYBOOK_CONCURRENCY="1")
    await wait_until_ready(worker)
    async with blocked_builds(engine):
        first = await queue_run(sessions)
        await queue.send(BUILD_REPORT, BuildReport(run_id=first))
        await wait_until(lambda: has_blocked_builds(engine, 1))
        second = await queue_run(sessions)
        await queue.send(BUILD_REPORT, BuildReport(run_id=second))
        worker.send(signal.SIGTERM)
        await wait_until(lambda: _is_draining(worker))

    assert await wait_for_exit(worker) == 0
    assert (await get_run(sessions, first)).state == RunState.SUCCEEDED
    assert (await get_run(sessions, second)).state == RunState.QUEUED
    await wait_until(lambda: _has_depth(amqp, 1), what="the second message to be requeued")


async def test_a_build_that_exceeds_the_drain_timeout_is_released(
    start_worker: StartWorker, queue: TaskIQQueue, sessions: Sessions, engine: AsyncEngine
) -> None:
    worker = start_worker("reports", DAYBOOK_DRAIN_SECONDS="0.3")
    await wait_until_ready(worker)
    run_id = await queue_run(sessions)
    async with blocked_builds(engine):
        await queue.send(BUILD_REPORT, BuildReport(run_id=run_id))
        await wait_until(lambda: has_blocked_builds(engine, 1))
        worker.send(signal.SIGTERM)
        assert await wait_for_exit(worker) == 0

    assert find_log_entry(worker, "draining")["seconds"] == 0.3
    assert find_log_entry(worker, "drain timeout exceeded; interrupting active work")
    released = await get_run(sessions, run_id)
    assert (released.state, released.attempt) == (RunState.PENDING, 0)


async def test_a_second_signal_interrupts_the_drain(
    start_worker: StartWorker, queue: TaskIQQueue, sessions: Sessions, engine: AsyncEngine
) -> None:
    worker = start_worker("reports", DAYBOOK_DRAIN_SECONDS=LONG_DRAIN_SECONDS)
    await wait_until_ready(worker)
    run_id = await queue_run(sessions)
    async with blocked_builds(engine):
        await queue.send(BUILD_REPORT, BuildReport(run_id=run_id))
        await wait_until(lambda: has_blocked_builds(engine, 1))
        worker.send(signal.SIGINT)
        await wait_until(lambda: _is_draining(worker))
        worker.send(signal.SIGINT)
        assert await wait_for_exit(worker) == 0

    assert (await get_run(sessions, run_id)).state == RunState.PENDING


async def test_a_message_is_not_acknowledged_before_its_report_is_committed(
    start_worker: StartWorker,
    queue: TaskIQQueue,
    sessions: Sessions,
    engine: AsyncEngine,
    amqp: AmqpClient,
) -> None:
    worker = start_worker("reports")
    await wait_until_ready(worker)
    run_id = await queue_run(sessions)
    async with blocked_builds(engine):
        await queue.send(BUILD_REPORT, BuildReport(run_id=run_id))
        await wait_until(lambda: has_blocked_builds(engine, 1))
        worker.kill()

    await wait_until(lambda: _has_depth(amqp, 1), what="the message to be requeued")
    assert await find_report_day(sessions) is None


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
async def test_both_commands_build_reports_and_dead_letter_what_they_cannot_process(
    start_worker: StartWorker,
    queue: TaskIQQueue,
    sessions: Sessions,
    engine: AsyncEngine,
    amqp: AmqpClient,
    command: tuple[str, ...],
) -> None:
    worker = start_worker(command=command)

    await amqp.publish_run_message(b"nonsense")
    assert list_deaths(await amqp.consume_dead_letter()) == [(RUNS, "rejected", 1)]

    buggy = await queue_run(sessions)
    async with failing_builds(engine, sqlstate="P0001"):
        await queue.send(BUILD_REPORT, BuildReport(run_id=buggy))
        assert str(buggy) in (await amqp.consume_dead_letter()).body.decode()
    assert (await get_run(sessions, buggy)).error_detail is not None

    other = DAY.replace(day=2)
    good = await queue_run(sessions, day=other)
    await queue.send(BUILD_REPORT, BuildReport(run_id=good))
    await wait_until(lambda: has_state(sessions, good, RunState.SUCCEEDED))
    worker.send(signal.SIGTERM)
    assert await wait_for_exit(worker) == 0
    assert (await amqp.depth(RUNS), await amqp.depth(DEAD_LETTERS)) == (0, 0)


async def test_a_worker_without_its_servers_is_alive_but_not_ready(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(
        "reports",
        DAYBOOK_BROKER_URL="amqp://guest:guest@127.0.0.1:1/",
        DAYBOOK_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nowhere",
        DAYBOOK_DRAIN_SECONDS=LONG_DRAIN_SECONDS,
    )
    url = await wait_for_health_url(worker)

    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{url}/healthz")).status_code == 200
        response = await client.get(f"{url}/readyz")

    assert response.status_code == 503
    assert response.json()["checks"] == {
        "database": "ConnectionRefusedError",
        "timezone": "DAYBOOK_TIMEZONE has not been compared with the database yet",
        "broker": "not consuming from RabbitMQ",
        "claims": "ok",
    }
    worker.send(signal.SIGTERM)
    assert await wait_for_exit(worker) == 0


async def test_invalid_settings_end_the_worker_with_the_name_of_each(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(
        "reports", DAYBOOK_CONCURRENCY="0", DAYBOOK_DATABASE_URL="mysql://hunter2@localhost/x"
    )

    assert await wait_for_exit(worker) == 2
    assert "DAYBOOK_CONCURRENCY: " in worker.read_log()
    assert "DAYBOOK_DATABASE_URL: expected postgresql://" in worker.read_log()
    assert "hunter2" not in worker.read_log()
    assert "Traceback" not in worker.read_log()


async def test_a_health_port_in_use_ends_the_worker_with_the_name_of_the_setting(
    start_worker: StartWorker,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        worker = start_worker("reports", DAYBOOK_HEALTH_PORT=str(busy.getsockname()[1]))
        assert await wait_for_exit(worker) == 2

    assert "DAYBOOK_HEALTH_PORT" in worker.read_log()
    assert "Traceback" not in worker.read_log()


async def _is_draining(worker: Service) -> bool:
    return bool(find_log_entry(worker, "draining"))


async def _has_depth(amqp: AmqpClient, messages: int) -> bool:
    return await amqp.depth() == messages
