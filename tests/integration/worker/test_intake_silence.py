"""Intake on a Postgres that is silent, out of resources or blocked, and in a paused worker."""

import asyncio
import signal
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.errors import Unavailable
from tests.integration.worker.intake import is_consuming, running_intake
from tests.integration.worker.processes import StartWorker, wait_for_exit, wait_until_ready
from tests.support.amqp import AmqpClient
from tests.support.factories.messages import order_message
from tests.support.oracles.shop_state import get_shop_state
from tests.support.postgres import wait_for_blocked_transaction
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rabbitmq

BATCH = b"INSERT INTO intake_receipts"
APPLICATION = "daybook-worker"


async def until_orders(engine: AsyncEngine, number: int) -> None:
    async def is_placed() -> bool:
        return (await get_shop_state(engine)).orders == number

    await wait_until(is_placed, what=f"{number} orders")


@pytest.mark.parametrize("request_text", [BATCH, b"COMMIT"])
async def test_a_batch_that_is_never_answered_is_repeated_and_has_one_effect(
    producer: AmqpClient,
    postgres_url: str,
    rabbitmq_url: str,
    engine: AsyncEngine,
    request_text: bytes,
) -> None:
    limit = timedelta(seconds=1)
    async with (
        Proxy(postgres_url) as proxy,
        running_intake(
            proxy.url, rabbitmq_url, transaction_timeout=limit, idle_timeout=limit
        ) as intake,
    ):
        proxy.stall_request(request_text, after=BATCH)
        await producer.send_all(("order", order_message()) for _ in range(20))
        await proxy.trapped.wait()
        await until_orders(engine, 20)
        assert await is_consuming(intake)

    assert (await get_shop_state(engine)).stock == {1: 980}
    assert await producer.count_intake_messages() == 0


async def test_a_batch_whose_commit_is_never_confirmed_has_one_effect(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    limit = timedelta(seconds=1)
    async with (
        Proxy(postgres_url) as proxy,
        running_intake(proxy.url, rabbitmq_url, transaction_timeout=limit),
    ):
        proxy.stall_reply_to(b"COMMIT", after=BATCH)
        await producer.send_all(("order", order_message()) for _ in range(20))
        await proxy.trapped.wait()
        await producer.send("order", order_message())
        await until_orders(engine, 21)

    assert (await get_shop_state(engine)).stock == {1: 979}
    assert await producer.count_intake_messages() == 0


@pytest.mark.parametrize("sqlstate", ["25006", "53100", "53300"])
async def test_messages_are_retained_while_the_server_is_out_of_resources(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine, sqlstate: str
) -> None:
    async with engine.begin() as connection:
        for statement in (
            "CREATE SEQUENCE attempts",
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF nextval('attempts') = 1 THEN"
            f" RAISE EXCEPTION 'simulated' USING ERRCODE = '{sqlstate}'; END IF;"
            " RETURN NULL; END $$",
            "CREATE TRIGGER refuse BEFORE INSERT ON orders"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
        ):
            await connection.execute(text(statement))
    try:
        async with running_intake(postgres_url, rabbitmq_url):
            await producer.send_all(("order", order_message()) for _ in range(5))
            await until_orders(engine, 5)
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("DROP FUNCTION refuse CASCADE"))
            await connection.execute(text("DROP SEQUENCE attempts"))

    seen = await get_shop_state(engine)
    assert (seen.stock, seen.dead_letters) == ({1: 995}, {})
    assert await producer.count_intake_messages() == 0


async def test_an_intake_is_not_ready_while_a_batch_waits_for_its_commit(
    producer: AmqpClient, postgres_url: str, rabbitmq_url: str, engine: AsyncEngine
) -> None:
    stalled_after = timedelta(seconds=0.2)
    async with running_intake(postgres_url, rabbitmq_url, stalled_after=stalled_after) as intake:

        async def is_stalled() -> bool:
            try:
                await intake.ping()
            except Unavailable as error:
                return "a batch has waited" in error.detail
            return False

        async with engine.begin() as connection:
            await connection.execute(text("LOCK TABLE orders IN EXCLUSIVE MODE"))
            await producer.send("order", order_message())
            await wait_until(is_stalled, what="a stalled batch")
        await until_orders(engine, 1)
        await wait_until(lambda: is_consuming(intake), what="readiness")


async def test_a_stopping_intake_returns_the_messages_of_a_silent_batch_within_its_drain_time(
    start_worker: StartWorker,
    producer: AmqpClient,
    postgres_url: str,
    rabbitmq_url: str,
    engine: AsyncEngine,
) -> None:
    async with Proxy(postgres_url) as proxy:
        worker = start_worker("intake", DAYBOOK_DATABASE_URL=proxy.url, DAYBOOK_DRAIN_SECONDS="0.5")
        await wait_until_ready(worker)
        proxy.stall_reply_to(BATCH)
        await producer.send_all(("order", order_message()) for _ in range(20))
        await proxy.trapped.wait()
        proxy.stall()
        worker.send(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await wait_for_exit(worker) == 0

    async with running_intake(postgres_url, rabbitmq_url):
        await _end_silent_transactions(engine)
        await until_orders(engine, 20)
    assert (await get_shop_state(engine)).stock == {1: 980}
    assert await producer.count_intake_messages() == 0


async def test_the_messages_of_a_worker_that_is_paused_within_a_batch_are_processed_once(
    start_worker: StartWorker,
    producer: AmqpClient,
    postgres_url: str,
    rabbitmq_url: str,
    engine: AsyncEngine,
) -> None:
    async with Proxy(rabbitmq_url) as proxy:
        paused = start_worker("intake", DAYBOOK_BROKER_URL=proxy.url)
        await wait_until_ready(paused)
        async with engine.begin() as connection:
            await connection.execute(text("LOCK TABLE orders IN EXCLUSIVE MODE"))
            await producer.send_all(("order", order_message()) for _ in range(20))
            await wait_for_blocked_transaction(engine)
            paused.send(signal.SIGSTOP)
        # RabbitMQ requeues the messages, as it does when the heartbeats are missing.
        await proxy.cut()
        await proxy.restore()
        async with running_intake(postgres_url, rabbitmq_url):
            # The batch of the other worker waits for the open transaction of the paused one.
            await wait_for_blocked_transaction(engine)
            assert (await get_shop_state(engine)).orders == 0
            await _end_silent_transactions(engine)
            await until_orders(engine, 20)
            paused.send(signal.SIGCONT)
            await producer.send("order", order_message())
            await until_orders(engine, 21)
        paused.send(signal.SIGTERM)
        assert await wait_for_exit(paused) == 0

    assert (await get_shop_state(engine)).stock == {1: 979}
    assert await producer.count_intake_messages() == 0


async def _end_silent_transactions(engine: AsyncEngine) -> None:
    """End the transactions of workers that send nothing, as the idle timeout does.

    And sooner, and also between the preparation of a statement and its execution, which the idle
    timeout does not cover.
    """
    async with engine.connect() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = :name"
                " AND xact_start IS NOT NULL AND wait_event = 'ClientRead'"
            ),
            {"name": APPLICATION},
        )
