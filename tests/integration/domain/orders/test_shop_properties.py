"""Do catalogue and orders behave as a plain program of dictionaries does, whatever comes?"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.catalog import service as catalog
from daybook_domain.catalog.service import NewAddress, NewProduct, NewUser
from daybook_domain.errors import DaybookError
from daybook_domain.orders import queries, service
from daybook_domain.orders.models import OrderStatus
from daybook_domain.orders.order_placement import PlacedOrder, place_orders
from daybook_domain.orders.order_validation import NewItem, NewOrder
from daybook_domain.reports.business_day import business_day
from daybook_platform.postgres.engine import create_engine, create_sessions
from tests.support.databases import empty
from tests.support.shop import build

T = TypeVar("T")
UNSENT = {"pending", "paid"}
STEPS = {
    ("pending", "paid"),
    ("paid", "shipped"),
    ("shipped", "delivered"),
    ("pending", "cancelled"),
    ("paid", "cancelled"),
}
NOTHING = 999_999
"""A key that nothing has."""

places = st.integers(0, 12)
"""Of something among what there is; 12: nothing."""
amounts = st.decimals("0.01", "99.99", places=2)
item_lists = st.lists(st.tuples(places, st.integers(1, 4)), min_size=1, max_size=3)
order_bodies = st.tuples(places, places, item_lists, st.sampled_from([None, "a", "b", "c"]))


@dataclass
class ModelOrder:
    """An order as the plain program knows it."""

    user: int
    address: int
    items: list[tuple[int, int, Decimal]]
    external_id: str | None
    content: tuple[int, int, Counter[int]]
    status: str = "pending"
    reported: bool = False

    @property
    def pieces(self) -> Counter[int]:
        return count((product, quantity) for product, quantity, _ in self.items)


@dataclass
class Model:
    """The plain program."""

    prices: dict[int, Decimal] = field(default_factory=dict)
    stock: Counter[int] = field(default_factory=Counter)
    users: list[int] = field(default_factory=list)
    addresses: dict[int, int] = field(default_factory=dict)
    orders: dict[int, ModelOrder] = field(default_factory=dict)

    def refusal(self, order: NewOrder) -> str | None:
        """Return the code with which an order is refused, if it is."""
        if order.user_id not in self.users or order.delivery_address_id not in self.addresses:
            return "unknown_reference"
        if self.addresses[order.delivery_address_id] != order.user_id:
            return "foreign_address"
        if any(item.product_id not in self.prices for item in order.items):
            return "unknown_reference"
        wanted = count((item.product_id, item.quantity) for item in order.items)
        return None if wanted <= self.stock else "out_of_stock"

    def same_external_id(self, order: NewOrder) -> tuple[int, ModelOrder] | None:
        return next(
            (
                (key, known)
                for key, known in self.orders.items()
                if order.external_id is not None and known.external_id == order.external_id
            ),
            None,
        )

    def add(self, key: int, order: NewOrder) -> None:
        items = [(one.product_id, one.quantity, self.prices[one.product_id]) for one in order.items]
        self.orders[key] = ModelOrder(
            order.user_id, order.delivery_address_id, items, order.external_id, content(order)
        )
        self.stock.subtract(self.orders[key].pieces)

    def put_back(self, order: ModelOrder) -> None:
        self.stock.update(order.pieces)


def count(items: Any) -> Counter[int]:
    total: Counter[int] = Counter()
    for product, quantity in items:
        total[product] += quantity
    return total


def content(order: NewOrder) -> tuple[int, int, Counter[int]]:
    pieces = count((item.product_id, item.quantity) for item in order.items)
    return order.user_id, order.delivery_address_id, pieces


def pick(known: Sequence[int], place: int) -> int:
    return known[place % len(known)] if known and place < 12 else NOTHING


class Shop(RuleBasedStateMachine):
    """What is done to both, and must come out the same."""

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: AsyncEngine) -> None:
        super().__init__()
        self.loop = loop
        self.engine = engine
        self.sessions = create_sessions(engine)
        self.model = Model()
        self.run(empty(engine))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def ask(self, decide: Any, *arguments: Any, **more: Any) -> Any:
        """Return what a service decides, in a transaction of its own; a refusal as its code."""

        async def work() -> Any:
            try:
                async with self.sessions.begin() as session:
                    return await decide(session, *arguments, **more)
            except DaybookError as refusal:
                return refusal.code

        return self.run(work())

    def items(self, chosen: Sequence[tuple[int, int]]) -> tuple[NewItem, ...]:
        known = sorted(self.model.prices)
        return tuple(NewItem(pick(known, place), quantity) for place, quantity in chosen)

    @initialize()
    def open_with_something(self) -> None:
        for _ in range(2):
            self.add_user_with_two_addresses()
            self.add_product(price=Decimal("3.50"), stock=9)
        for user in range(2):
            self.place_a_batch(bodies=[(user, 0, [(user, 2)], None)])

    @rule(price=amounts, stock=st.integers(0, 9))
    def add_product(self, price: Decimal, stock: int) -> None:
        (key,) = self.ask(catalog.add_products, [NewProduct("tea", None, price, stock)])
        self.model.prices[key], self.model.stock[key] = price, stock

    @rule()
    def add_user_with_two_addresses(self) -> None:
        name = f"user{len(self.model.users)}"
        user = self.ask(catalog.add_user, NewUser(name, f"{name}@example.com"))
        self.model.users.append(user.id)
        for _ in range(2):
            home = NewAddress("Quay", "Bergen", "5003", "NO", is_primary=True)
            address = self.ask(catalog.add_address, user.id, home)
            self.model.addresses[address.id] = user.id

    @rule(place=places, price=amounts, stock=st.none() | st.integers(0, 9))
    def change_product(self, place: int, price: Decimal, stock: int | None) -> None:
        key = pick(sorted(self.model.prices), place)
        changes = {"price": price} | ({} if stock is None else {"stock_quantity": stock})
        changed = self.ask(catalog.change_product, key, changes=changes)
        if key == NOTHING:
            assert changed == "product_not_found"
            return
        self.model.prices[key] = price
        if stock is not None:
            self.model.stock[key] = stock

    @rule(place=places)
    def delete_product(self, place: int) -> None:
        key = pick(sorted(self.model.prices), place)
        refused = self.ask(catalog.delete_product, key)
        if key == NOTHING:
            assert refused == "product_not_found"
        elif any(key in order.pieces for order in self.model.orders.values()):
            assert refused == "in_use"
        else:
            assert refused is None
            del self.model.prices[key], self.model.stock[key]

    @rule(place=places)
    def delete_address(self, place: int) -> None:
        key = pick(sorted(self.model.addresses), place)
        user = self.model.addresses.get(key, pick(self.model.users, 0))
        refused = self.ask(catalog.delete_address, key, user_id=user)
        if key == NOTHING:
            assert refused in {"address_not_found", "user_not_found"}
        elif any(order.address == key for order in self.model.orders.values()):
            assert refused == "in_use"
        else:
            assert refused is None
            del self.model.addresses[key]

    @rule(bodies=st.lists(order_bodies, min_size=1, max_size=5))
    def place_a_batch(self, bodies: list[Any]) -> None:
        orders = [
            self.order(user, address, chosen, external_id)
            for user, address, chosen, external_id in bodies
        ]
        for order, outcome in zip(orders, self.ask(place_orders, orders), strict=True):
            self.compare(order, outcome)

    def order(
        self, user: int, address: int, chosen: list[tuple[int, int]], external_id: str | None
    ) -> NewOrder:
        user_id = pick(self.model.users, user)
        own = [key for key, owner in self.model.addresses.items() if owner == user_id]
        address_id = pick(own if address < 8 else sorted(self.model.addresses), address)
        return NewOrder(user_id, address_id, self.items(chosen), external_id)

    def compare(self, order: NewOrder, outcome: PlacedOrder | DaybookError) -> None:
        known = self.model.same_external_id(order)
        told = outcome.code if isinstance(outcome, DaybookError) else outcome.duplicate
        if known is not None and known[1].content == content(order):
            assert told is True
            assert isinstance(outcome, PlacedOrder)
            assert outcome.order_id == known[0]
        elif known is not None:
            assert told == "external_id_taken"
        else:
            assert told == (self.model.refusal(order) or False)
        if told is False:
            assert isinstance(outcome, PlacedOrder)
            self.model.add(outcome.order_id, order)

    @precondition(lambda self: self.model.orders)
    @rule(place=places, status=st.sampled_from(OrderStatus))
    def change_status(self, place: int, status: OrderStatus) -> None:
        key = pick(sorted(self.model.orders), place)
        changed = self.ask(service.change, key, changes={"status": status})
        if key == NOTHING:
            assert changed == "order_not_found"
            return
        order = self.model.orders[key]
        if status == order.status:
            assert changed.status is status
        elif (order.status, status) not in STEPS:
            assert changed == "status_forbids"
        else:
            order.status = changed.status.value
            if status is OrderStatus.CANCELLED:
                self.model.put_back(order)

    @precondition(lambda self: self.model.orders)
    @rule(place=places, chosen=item_lists)
    def change_items(self, place: int, chosen: list[tuple[int, int]]) -> None:
        key = pick(sorted(self.model.orders), place)
        items = self.items(chosen)
        changed = self.ask(service.change, key, changes={"items": items})
        if key == NOTHING:
            assert changed == "order_not_found"
            return
        order = self.model.orders[key]
        wanted = count((item.product_id, item.quantity) for item in items)
        if wanted == order.pieces:
            assert changed.id == key
        elif order.status != "pending":
            assert changed == "status_forbids"
        elif any(item.product_id not in self.model.prices for item in items):
            assert changed == "unknown_reference"
        elif not wanted <= self.model.stock + order.pieces:
            assert changed == "out_of_stock"
        else:
            self.model.put_back(order)
            order.items = [
                (item.product_id, item.quantity, self.model.prices[item.product_id])
                for item in items
            ]
            self.model.stock.subtract(order.pieces)
            assert self.waiting() or not order.reported

    @rule(place=places)
    def delete_order(self, place: int) -> None:
        key = pick(sorted(self.model.orders), place)
        refused = self.ask(service.delete, key)
        if key == NOTHING:
            assert refused == "order_not_found"
        elif self.model.orders[key].reported:
            assert refused == "order_reported"
        else:
            assert refused is None
            order = self.model.orders.pop(key)
            if order.status in UNSENT:
                self.model.put_back(order)

    @rule()
    def report(self) -> None:
        for order in self.model.orders.values():
            order.reported = True
        self.run(self.build())

    async def build(self) -> None:
        async with self.sessions() as session:
            found, _ = await queries.list_orders(session, limit=1000, offset=0)
        for day in {order.created_at.astimezone(UTC).date() for order in found}:
            await build(self.engine, business_day(day, timezone="UTC"))
        async with self.engine.begin() as connection:
            await connection.execute(text("DELETE FROM report_runs"))

    def waiting(self) -> bool:
        """Tell whether a rebuild has been asked for since the last build."""

        async def look() -> bool:
            async with self.engine.connect() as connection:
                runs = await connection.execute(text("SELECT count(*) FROM report_runs"))
                return bool(runs.scalar_one())

        return self.run(look())

    @invariant()
    def both_say_the_same(self) -> None:
        products, orders = self.run(self.stored())
        model = self.model
        assert products == {key: (price, model.stock[key]) for key, price in model.prices.items()}
        assert min(model.stock.values(), default=0) >= 0
        assert orders == {
            key: (
                order.user,
                order.address,
                order.external_id,
                order.status,
                sum((quantity * price for _, quantity, price in order.items), Decimal(0)),
                order.items,
            )
            for key, order in model.orders.items()
        }

    async def stored(self) -> tuple[dict[int, Any], dict[int, Any]]:
        async with self.sessions() as session:
            sold = await session.execute(text("SELECT id, price, stock_quantity FROM products"))
            products = {row.id: (row.price, row.stock_quantity) for row in sold}
            found, _ = await queries.list_orders(session, limit=1000, offset=0)
            items = await queries.list_items(session, [order.id for order in found if order.id])
        return products, {
            order.id: (
                order.user_id,
                order.delivery_address_id,
                order.external_id,
                order.status,
                order.total_price,
                [(one.product_id, one.quantity, one.price_at_order) for one in items[order.id]],
            )
            for order in found
            if order.id is not None
        }


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return a loop of the machine's own, whose rules are no coroutines."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_catalogue_and_orders_behave_as_the_model(
    loop: asyncio.AbstractEventLoop, postgres_url: str
) -> None:
    engine = create_engine(postgres_url, application="tests", pool_size=1)

    class OurShop(Shop):
        def __init__(self) -> None:
            super().__init__(loop, engine)

    run_state_machine_as_test(
        OurShop,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    loop.run_until_complete(engine.dispose())
