"""Does the real process take messages in, die and stop without losing or doubling one?"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api.main import build_app
from daybook_api.settings import ApiSettings
from tests.integration.api.conftest import serve
from tests.integration.worker.test_main import ready
from tests.support.copies import is_kept
from tests.support.locks import somebody_waits
from tests.support.logs import health_url, until_logged
from tests.support.messages import books, order
from tests.support.processes import Service
from tests.support.producer import Producer
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = pytest.mark.rabbitmq

Start = Callable[..., Service]


@pytest.fixture
def start(rabbitmq_url: str, postgres_url: str, tmp_path: Path) -> Iterator[Start]:
    """Return a way to start workers, which end with the test."""
    with ExitStack() as stack:

        def start(*role: str, broker_url: str = rabbitmq_url, **more: str) -> Service:
            service = Service(
                ("daybook-worker", *role),
                environment={
                    "DAYBOOK_DATABASE_URL": postgres_url,
                    "DAYBOOK_BROKER_URL": broker_url,
                    **more,
                },
                log=tmp_path / f"{len(list(tmp_path.iterdir()))}.log",
            )
            return stack.enter_context(service)

        yield start


async def has_orders(engine: AsyncEngine, number: int) -> bool:
    return (await books(engine)).orders >= number


async def test_a_worker_killed_between_commit_and_acknowledgement_doubles_nothing(
    start: Start, producer: Producer, engine: AsyncEngine, rabbitmq_url: str
) -> None:
    for _ in range(40):
        await producer.send("order", order())  # All alike, and nothing tells them apart.
    await producer.send("order", b"nonsense")
    async with Proxy(rabbitmq_url) as proxy:
        async with engine.begin() as connection:
            # The batch can begin, and not end.
            await connection.execute(text("LOCK TABLE orders IN EXCLUSIVE MODE"))
            victim = start("intake", broker_url=proxy.url)
            await somebody_waits(engine)
            proxy.swallow()
        await until(lambda: has_orders(engine, 1), what="a commit that RabbitMQ does not hear of")
        victim.kill()
        await proxy.cut()

    async def given_back() -> bool:
        return await producer.depth("order") == 41

    await until(given_back, what="all messages being given back")
    url = await ready(start("intake"))

    async def settled() -> bool:
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"{url}/metrics")).text
        lines = [line for line in metrics.splitlines() if "intake_messages_total{" in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines) == 41

    await until(settled, what="an outcome of all messages")
    found = await books(engine)
    assert (found.orders, found.stock) == (40, {1: 960})
    assert found.letters == {"kept": [("order", "malformed")]}


async def test_a_copy_in_redis_does_not_outlive_an_order_that_takes_stock(
    start: Start, producer: Producer, postgres_url: str, copies: Redis, copies_url: str
) -> None:
    caching = {"redis_url": copies_url, "cache_timeout": timedelta(seconds=10)}
    settings = ApiSettings.model_validate({"database_url": postgres_url, **caching})
    await ready(start("intake", DAYBOOK_REDIS_URL=copies_url, DAYBOOK_CACHE_TIMEOUT="10"))
    async with serve(build_app(settings)) as api:
        await until(lambda: is_kept_after_a_read(api, copies), what="a copy")

        await producer.send("order", order(quantity=2))

        async def sold() -> bool:
            return bool((await api.get("/products/1")).json()["stock_quantity"] == 998)

        await until(sold, what="what is left, and not the copy of before")


async def is_kept_after_a_read(api: httpx.AsyncClient, copies: Redis) -> bool:
    assert (await api.get("/products/1")).json()["stock_quantity"] == 1000
    return await is_kept(copies, "daybook:product:1")


async def test_both_roles_run_and_stop_together(
    start: Start, producer: Producer, engine: AsyncEngine
) -> None:
    worker = start()
    url = await ready(worker)
    await producer.send("order", order())
    await until(lambda: has_orders(engine, 1))

    async with httpx.AsyncClient() as client:
        checks = (await client.get(f"{url}/readyz")).json()["checks"]
        metrics = (await client.get(f"{url}/metrics")).text
    worker.send(signal.SIGTERM)

    assert await asyncio.to_thread(worker.wait) == 0
    assert checks == {"database": "ok", "broker": "ok", "intake": "ok"}
    applied = 'daybook_intake_messages_total{outcome="applied",queue="order"} 1.0'
    assert applied in metrics
    assert await producer.depths() == 0


async def test_a_stop_in_the_middle_finishes_the_batch_and_gives_back_the_rest(
    start: Start, producer: Producer, engine: AsyncEngine
) -> None:
    worker = start("intake")
    await ready(worker)
    async with engine.begin() as connection:
        await connection.execute(text("LOCK TABLE orders IN EXCLUSIVE MODE"))
        for _ in range(30):
            await producer.send("order", order())
        await somebody_waits(engine)
        worker.send(signal.SIGTERM)
        await until_logged(worker, "draining")
    assert await asyncio.to_thread(worker.wait) == 0

    done = (await books(engine)).orders
    assert done >= 1

    async def rest() -> bool:
        return await producer.depth("order") == 30 - done

    await until(rest, what="the rest being given back")


async def test_a_queue_of_another_kind_keeps_it_unready_and_alive(
    start: Start, producer: Producer
) -> None:
    await producer.channel.queue_delete("product")
    await producer.channel.declare_queue("product", durable=True)
    try:
        worker = start("intake")
        url = await health_url(worker)

        async def explained() -> bool:
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"{url}/readyz")
            return answer.status_code == 503 and "'product' exists" in answer.text

        await until(explained, what="a word about the queue")
        assert worker.running
        assert "docs/intake.md" in worker.said()
    finally:
        await producer.channel.queue_delete("product")


async def test_without_rabbitmq_reports_are_built_and_nothing_is_taken_in(
    start: Start, redis_url: str
) -> None:
    worker = start(broker_url=redis_url)
    url = await ready(worker)

    async with httpx.AsyncClient() as client:
        checks = (await client.get(f"{url}/readyz")).json()["checks"]

    assert checks.keys() == {"database", "broker"}
    assert "products and orders are not taken in" in worker.said()
