"""Concurrent writers of a few products and orders: no deadlock, and no lost stock."""

import asyncio
from collections import Counter
from random import Random

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.catalog import products
from daybook_domain.errors import DaybookError
from daybook_domain.orders import service
from daybook_domain.orders.models import OrderStatus
from daybook_domain.orders.order_placement import place_orders
from daybook_domain.orders.order_validation import NewItem, NewOrder
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.shop import reset_shop

PRODUCTS = 6
STOCK = 1000
WRITERS = 12
OPERATIONS = 60

STOCK_AND_SOLD = text(
    """
    SELECT p.id, p.stock_quantity + coalesce(sum(i.quantity) FILTER (
        WHERE o.status <> 'cancelled'), 0) AS quantity
    FROM products AS p
    LEFT JOIN order_items AS i ON i.product_id = p.id LEFT JOIN orders AS o ON o.id = i.order_id
    GROUP BY p.id ORDER BY p.id
    """
)


@pytest.fixture(autouse=True)
async def shop(engine: AsyncEngine) -> None:
    """Create user ada, her address, and six products with a large stock."""
    await reset_shop(engine)
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO products (name, price, stock_quantity)"
                f" SELECT 'tea', n, {STOCK} FROM generate_series(2, {PRODUCTS}) AS n"
            )
        )


class Writer:
    """A client that executes random operations, each in a transaction of its own."""

    def __init__(self, sessions: Sessions, seed: int) -> None:
        self._sessions = sessions
        self._random = Random(seed)
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        for _ in range(OPERATIONS):
            operation = self._random.choice([self._place, self._place, self._change, self._items])
            operation = self._random.choice([operation, operation, self._delete, self._product])
            name = operation.__name__
            try:
                async with self._sessions.begin() as session:
                    await operation(session)
                self.counts[name] += 1
            except DaybookError as error:
                self.counts[error.code] += 1

    def _random_items(self) -> tuple[NewItem, ...]:
        chosen = self._random.sample(range(1, PRODUCTS + 1), k=self._random.randint(1, 4))
        return tuple(NewItem(product, self._random.randint(1, 3)) for product in chosen)

    def _random_order_id(self) -> int:
        return self._random.randint(1, 40)

    async def _place(self, session: AsyncSession) -> None:
        keys = [None, *(f"shop-{n}" for n in range(30))]
        batch = [
            NewOrder(1, 1, self._random_items(), self._random.choice(keys))
            for _ in range(self._random.choice([1, 1, 8]))
        ]
        await place_orders(session, batch)

    async def _change(self, session: AsyncSession) -> None:
        status = self._random.choice([OrderStatus.PAID, OrderStatus.CANCELLED])
        await service.change(session, self._random_order_id(), changes={"status": status})

    async def _items(self, session: AsyncSession) -> None:
        changes: service.OrderChanges = {"items": self._random_items(), "delivery_address_id": 1}
        await service.change(session, self._random_order_id(), changes=changes)

    async def _delete(self, session: AsyncSession) -> None:
        await service.delete(session, self._random_order_id())

    async def _product(self, session: AsyncSession) -> None:
        product = self._random.randint(1, PRODUCTS)
        if self._random.random() < 0.3:
            await products.delete_product(session, product)
        await products.change_product(session, product, changes={"name": "tea again"})


async def test_concurrent_writers_neither_deadlock_nor_lose_stock(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    writers = [Writer(sessions, seed) for seed in range(WRITERS)]
    # A deadlock or a violated constraint is not a DaybookError, so it fails the test.
    await asyncio.gather(*(writer.run() for writer in writers))

    counts = sum((writer.counts for writer in writers), Counter[str]())
    assert {"_place", "_change", "_items", "_delete", "_product", "in_use"} <= counts.keys()
    async with engine.connect() as connection:
        totals = {row.id: row.quantity for row in await connection.execute(STOCK_AND_SOLD)}
    assert totals == dict.fromkeys(range(1, PRODUCTS + 1), STOCK)
