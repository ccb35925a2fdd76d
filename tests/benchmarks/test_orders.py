"""Orders per second, including the deduction of stock: one by one, in batches, and over REST.

Each order has three items. Over REST, eight clients (httpx, which shares the cores with the server)
each send the next order after the response to the last, to one uvicorn worker. The upper limit is
COPY: the same rows, precomputed, with their foreign keys, without reading or writing stock.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict
from decimal import Decimal
from itertools import count
from random import Random

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.catalog.models import Address, Product, User
from daybook_domain.orders.models import Order, OrderItem
from daybook_domain.orders.order_placement import PlacedOrder, place_orders
from daybook_domain.orders.order_validation import NewItem, NewOrder
from daybook_platform.postgres.engine import create_sessions
from tests.benchmarks import shop_database
from tests.benchmarks.http_client import accepts_connections, free_port
from tests.benchmarks.measurement import (
    Operation,
    describe_environment,
    format_ratio,
    format_table,
    measure_seconds,
    run_interleaved,
)
from tests.support.processes import Service
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

ROUNDS = 5
CLIENTS = 8
ORDERS = {"ORM": 150, "1": 300, "10": 2000, "100": 8000, "1,000": 8000, "COPY": 8000, "REST": 800}
"""Orders that each variant places in a round: enough for a steady rate in a few seconds."""


@pytest.fixture(scope="module")
async def engine(postgres_server_url: str) -> AsyncIterator[AsyncEngine]:
    """Yield a shop of a thousand users and products in a new database."""
    async with shop_database.created(postgres_server_url, name="orders") as engine:
        yield engine


@pytest.fixture(scope="module")
async def api(
    engine: AsyncEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the API of that shop, which runs in a new process."""
    port = free_port()
    environment = {
        "DAYBOOK_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "DAYBOOK_API_PORT": str(port),
        "DAYBOOK_LOG_LEVEL": "WARNING",
    }
    log = tmp_path_factory.mktemp("orders") / "api.log"
    with Service(["daybook-api"], environment=environment, log=log):
        await wait_until(lambda: accepts_connections(port), what="the API")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client


@pytest.fixture(scope="module")
def ids() -> Iterator[int]:
    """Return order ids for COPY that no sequence reaches."""
    return count(10_000_000)


class OrderPlacer:
    """Generates random orders, and measures several ways of placing them."""

    def __init__(self, engine: AsyncEngine, *, ids: Iterator[int], external_ids: bool) -> None:
        self._engine = engine
        self._sessions = create_sessions(engine)
        self._random = Random(1)
        self._numbers = count() if external_ids else None
        self._ids = ids

    def _orders(self, number: int) -> list[NewOrder]:
        return [self._order() for _ in range(number)]

    def _order(self) -> NewOrder:
        user = self._random.randint(1, 1000)
        chosen = self._random.sample(range(1, 1001), k=3)
        items = tuple(NewItem(product, self._random.randint(1, 5)) for product in chosen)
        key = None if self._numbers is None else f"{id(self)}-{next(self._numbers)}"
        return NewOrder(user, user, items, key)

    def orm(self, number: int) -> Operation:
        async def way() -> float:
            return await measure_seconds(self._orm(self._orders(number))) / number

        return way

    def batches(self, number: int, *, batch: int) -> Operation:
        async def way() -> float:
            return (
                await measure_seconds(self._place_in_batches(self._orders(number), batch)) / number
            )

        return way

    def copy(self, number: int) -> Operation:
        async def way() -> float:
            orders = [(next(self._ids), order) for order in self._orders(number)]
            return await measure_seconds(self._copy(orders)) / number

        return way

    def rest(self, number: int, client: httpx.AsyncClient) -> Operation:
        async def way() -> float:
            bodies = [asdict(order) for order in self._orders(number)]
            shares = (bodies[share::CLIENTS] for share in range(CLIENTS))
            return await measure_seconds(_send_all(client, list(shares))) / number

        return way

    async def _orm(self, orders: Sequence[NewOrder]) -> None:
        """Place each order through the ORM, in one transaction per order."""
        for order in orders:
            async with self._sessions.begin() as session:
                await _place_by_objects(session, order)

    async def _place_in_batches(self, orders: Sequence[NewOrder], batch: int) -> None:
        for start in range(0, len(orders), batch):
            async with self._sessions.begin() as session:
                outcomes = await place_orders(session, orders[start : start + batch])
            assert all(isinstance(outcome, PlacedOrder) for outcome in outcomes)

    async def _copy(self, orders: Sequence[tuple[int, NewOrder]]) -> None:
        columns = ["id", "external_id", "user_id", "delivery_address_id", "total_price", "status"]
        rows = [
            (key, order.external_id, order.user_id, order.delivery_address_id, 31, "pending")
            for key, order in orders
        ]
        items = [
            (key, item.product_id, item.quantity, 3)
            for key, order in orders
            for item in order.items
        ]
        async with self._engine.begin() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            await connection.execute(text("SELECT 1"))
            await driver.copy_records_to_table("orders", records=rows, columns=columns)
            await driver.copy_records_to_table(
                "order_items",
                records=items,
                columns=["order_id", "product_id", "quantity", "price_at_order"],
            )


async def _send_all(
    client: httpx.AsyncClient, shares: Sequence[Sequence[dict[str, object]]]
) -> None:
    await asyncio.gather(*(_send(client, share) for share in shares))


async def _send(client: httpx.AsyncClient, bodies: Sequence[dict[str, object]]) -> None:
    for body in bodies:
        response = await client.post("/orders", json=body)
        assert response.status_code == 201, response.text


async def _place_by_objects(session: AsyncSession, order: NewOrder) -> None:
    user = await session.get_one(User, order.user_id)
    address = await session.get_one(Address, order.delivery_address_id)
    assert address.user_id == user.id
    products = {}
    for item in sorted(order.items, key=lambda item: item.product_id):
        product = await session.get_one(Product, item.product_id, with_for_update=True)
        assert product.stock_quantity >= item.quantity
        product.stock_quantity -= item.quantity
        products[item.product_id] = product
    placed = Order(
        external_id=order.external_id,
        user_id=order.user_id,
        delivery_address_id=order.delivery_address_id,
        total_price=sum(
            (products[item.product_id].price * item.quantity for item in order.items), Decimal(0)
        ),
    )
    session.add(placed)
    await session.flush()
    assert placed.id is not None
    session.add_all(
        OrderItem(
            order_id=placed.id,
            product_id=item.product_id,
            quantity=item.quantity,
            price_at_order=products[item.product_id].price,
        )
        for item in order.items
    )
    await session.flush()
    await session.refresh(placed)


@pytest.mark.parametrize("external_ids", [False, True], ids=["plain", "external_id"])
async def test_batches_and_rest_are_compared_with_the_orm_and_copy(
    engine: AsyncEngine, api: httpx.AsyncClient, ids: Iterator[int], *, external_ids: bool
) -> None:
    placer = OrderPlacer(engine, ids=ids, external_ids=external_ids)
    batches = {name: int(name.replace(",", "")) for name in ORDERS if name[0].isdigit()}
    ways = {
        "ORM": placer.orm(ORDERS["ORM"]),
        **{name: placer.batches(ORDERS[name], batch=size) for name, size in batches.items()},
        "COPY": placer.copy(ORDERS["COPY"]),
        "REST": placer.rest(ORDERS["REST"], api),
    }
    names = {"ORM": "ORM, one by one", "COPY": "COPY, stock untouched", "REST": "by REST"}
    taken = await run_interleaved(ways, rounds=ROUNDS)
    rows = [
        [
            names.get(way, f"batches of {way}"),
            f"{1 / taken.median(way):,.0f}",
            format_ratio(taken.ratio("ORM", to=way)),
            format_ratio(taken.ratio("COPY", to=way)),
        ]
        for way in ways
    ]
    what = "with an external id" if external_ids else "without external ids"
    title = f"{await describe_environment(engine)}; orders of three items, {what}"
    print(format_table(title, ["placed", "orders / s", "/ ORM", "/ COPY"], rows))
