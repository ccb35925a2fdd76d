"""Integration tests of cached users and products."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api.main import build_app
from daybook_api.settings import ApiSettings
from tests.integration.api.conftest import serve
from tests.integration.api.processes import api_process
from tests.support.copies import forget_all, is_kept
from tests.support.proxy import Proxy
from tests.support.rest import PRODUCT, add, left, open_shop, order

PATHS = {"user": "/users/1", "product": "/products/1"}


@asynccontextmanager
async def caching(
    postgres_url: str, redis_url: str, **more: Any
) -> AsyncIterator[httpx.AsyncClient]:
    # A slow machine must not look like an unavailable Redis.
    timeout = {"cache_timeout": timedelta(seconds=10)}
    settings = {"database_url": postgres_url, "redis_url": redis_url, **timeout, **more}
    async with serve(build_app(ApiSettings.model_validate(settings))) as client:
        yield client


@pytest.fixture
async def cached(
    postgres_url: str, copies: Redis, copies_url: str, api: httpx.AsyncClient
) -> AsyncIterator[httpx.AsyncClient]:
    """Return an API with a cache, and a shop; `api` is another one without a cache."""
    await open_shop(api)
    async with caching(postgres_url, copies_url) as client:
        yield client


async def _reads(client: httpx.AsyncClient, kind: str) -> dict[str, float]:
    """Return the number of reads of a kind by outcome."""
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    return {
        sample.labels["outcome"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "daybook_cache_reads_total" and sample.labels["kind"] == kind
    }


@pytest.mark.parametrize("kind", PATHS)
async def test_a_cached_response_has_the_same_bytes(
    cached: httpx.AsyncClient, api: httpx.AsyncClient, copies: Redis, kind: str
) -> None:
    body = {"description": 'Zoë "—"\n\u2028.'}
    await api.put(PATHS[kind], json=body)
    uncached = await api.get(PATHS[kind])
    miss, hit = await cached.get(PATHS[kind]), await cached.get(PATHS[kind])
    assert await _reads(cached, kind) == {"miss": 1, "hit": 1}
    assert uncached.content == miss.content == hit.content
    for answer in (uncached, miss, hit):
        del answer.headers["x-request-id"]
    assert uncached.headers == miss.headers == hit.headers
    assert uncached.json().items() >= body.items()


@pytest.mark.parametrize("kind", PATHS)
async def test_a_cache_hit_does_not_query_the_database(
    cached: httpx.AsyncClient, engine: AsyncEngine, kind: str
) -> None:
    before = (await cached.get(PATHS[kind])).content
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE users SET description = 'new'"))
        await connection.execute(text("UPDATE products SET description = 'new'"))
    assert (await cached.get(PATHS[kind])).content == before


async def test_a_missing_entity_is_not_cached(cached: httpx.AsyncClient, copies: Redis) -> None:
    for _ in range(2):
        answer = await cached.get("/products/2")
        assert (answer.status_code, answer.json()["code"]) == (404, "product_not_found")
    assert not await is_kept(copies, "daybook:product:2")
    await add(cached, "/products", PRODUCT)
    assert (await cached.get("/products/2")).status_code == 200


Request = tuple[str, str, Any]
ORDER: Request = ("POST", "/orders", {**order(), "items": [{"product_id": 2, "quantity": 2}]})
WRITES: dict[str, tuple[str, list[Request]]] = {
    "changing a user": ("/users/2", [("PUT", "/users/2", {"username": "bob"})]),
    "deleting a user": ("/users/2", [("DELETE", "/users/2", None)]),
    "changing a product": ("/products/2", [("PUT", "/products/2", {"price": "9.99"})]),
    "deleting a product": ("/products/2", [("DELETE", "/products/2", None)]),
    "placing an order": ("/products/2", [ORDER]),
    "placing an order with an external id": (
        "/products/2",
        [("POST", "/orders", {**ORDER[2], "external_id": "x"})],
    ),
    "cancelling an order": (
        "/products/2",
        [ORDER, ("PUT", "/orders/1", {"status": "cancelled"})],
    ),
    "deleting an order": ("/products/2", [ORDER, ("DELETE", "/orders/1", None)]),
    "replacing the items of an order": (
        "/products/1",
        [ORDER, ("PUT", "/orders/1", {"items": [{"product_id": 1, "quantity": 3}]})],
    ),
}


@pytest.mark.parametrize("what", WRITES)
async def test_a_write_is_visible_to_the_next_read(
    cached: httpx.AsyncClient, api: httpx.AsyncClient, what: str
) -> None:
    path, requests = WRITES[what]
    await add(api, "/users", {"username": "eve", "email": "eve@example.com"})
    await add(api, "/products", PRODUCT)
    for method, url, body in requests:
        before = await cached.get(path)
        assert (await cached.get(path)).content == before.content
        assert (await cached.request(method, url, json=body)).is_success
    truth, shown = await api.get(path), await cached.get(path)
    if what in {"deleting a user", "deleting a product"}:
        assert [truth.status_code, shown.status_code] == [404, 404]
    else:
        assert shown.content == truth.content != before.content
    hits = [await _reads(cached, kind) for kind in PATHS]
    assert sum(each.get("hit", 0) for each in hits) >= len(requests)


async def test_a_rejected_write_invalidates_nothing(cached: httpx.AsyncClient) -> None:
    await add(cached, "/users", {"username": "eve", "email": "eve@example.com"})
    for path in PATHS.values():
        await cached.get(path)
    assert (await cached.put("/users/1", json={"username": "eve"})).status_code == 409
    assert (await cached.post("/orders", json=order(1000))).status_code == 409
    for path in PATHS.values():
        await cached.get(path)
    assert (await _reads(cached, "user"))["hit"] == 1
    assert (await _reads(cached, "product"))["hit"] == 1


async def test_a_write_of_another_process_is_visible(
    cached: httpx.AsyncClient, postgres_url: str, copies_url: str, tmp_path: Path
) -> None:
    settings = {"DAYBOOK_REDIS_URL": copies_url, "DAYBOOK_CACHE_TIMEOUT": "10"}
    process = api_process(postgres_url, tmp_path, **settings)
    async with process as (_, other):
        for stock in range(5):
            await cached.get("/products/1")
            await cached.get("/products/1")
            assert (await other.put("/products/1", json={"stock_quantity": stock})).is_success
            assert [await left(cached), await left(other)] == [stock, stock]
    assert (await _reads(cached, "product"))["hit"] >= 5


async def test_a_corrupt_cache_entry_is_ignored_and_replaced(
    cached: httpx.AsyncClient, copies: Redis
) -> None:
    body = (await cached.get("/products/1")).content
    await copies.set("daybook:product:1", b"\xff{garbage")
    assert (await cached.get("/products/1")).content == body
    assert await is_kept(copies, "daybook:product:1")


async def test_reads_and_writes_work_without_redis(
    cached: httpx.AsyncClient, postgres_url: str, copies_url: str
) -> None:
    async with Proxy(copies_url) as proxy, caching(postgres_url, proxy.url) as cut_off:
        await cut_off.get("/products/1")
        await proxy.cut()
        for stock in range(20):
            answer = await cut_off.put("/products/1", json={"stock_quantity": stock})
            assert answer.is_success
            assert await left(cut_off) == stock
        assert (await cut_off.post("/orders", json=order(1))).status_code == 201
        assert await left(cut_off) == 18
        assert (await cut_off.get("/readyz")).status_code == 200


async def test_the_cache_can_be_disabled(
    cached: httpx.AsyncClient, postgres_url: str, copies: Redis, copies_url: str
) -> None:
    async with caching(postgres_url, copies_url, cache="off") as uncached:
        await uncached.get("/products/1")
        assert await _reads(uncached, "product") == {}
    assert not await is_kept(copies, "daybook:product:1")


WRITERS, READERS, CHANGES = 3, 6, 40


def _write_number(stock: int) -> int:
    """Return which write produced a stock: they are 10, 9, 12, 11, 14, 13 …"""
    return stock - 10 if stock % 2 == 0 else stock - 8


async def test_no_read_is_older_than_a_write_that_completed_before_it(
    cached: httpx.AsyncClient, postgres_url: str, copies: Redis, copies_url: str
) -> None:
    for _ in range(1, WRITERS):
        await add(cached, "/products", PRODUCT)
    completed = dict.fromkeys(range(1, WRITERS + 1), 0)
    finished = asyncio.Event()

    async with caching(postgres_url, copies_url) as other:
        apis = [cached, other]

        async def write(product: int) -> None:
            body = {**order(), "items": [{"product_id": product, "quantity": 1}]}
            for number in range(1, CHANGES + 1):
                one = apis[number % 2]
                assert (await one.post("/orders", json=body)).status_code == 201
                completed[product] += 1
                changes = {"stock_quantity": 10 + 2 * number}
                assert (await one.put(f"/products/{product}", json=changes)).is_success
                completed[product] += 1

        async def read(chance: random.Random) -> None:
            while not finished.is_set():
                product = chance.choice(list(completed))
                least = completed[product]
                assert _write_number(await left(chance.choice(apis), product)) >= least
                if chance.random() < 0.05:
                    await forget_all(copies)

        async with asyncio.TaskGroup() as group:
            for seed in range(READERS):
                group.create_task(read(random.Random(seed)))
            async with asyncio.TaskGroup() as writers:
                for product in completed:
                    writers.create_task(write(product))
            finished.set()
        outcomes = [await _reads(one, "product") for one in apis]
    assert sum(each["hit"] for each in outcomes) > CHANGES
    assert all("away" not in each for each in outcomes)
