"""Stateful property test: catalogue and orders behave as the in-memory model."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
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

from daybook_domain.catalog import addresses, products, users
from daybook_domain.catalog.addresses import NewAddress
from daybook_domain.catalog.products import NewProduct
from daybook_domain.catalog.users import NewUser
from daybook_domain.errors import DaybookError
from daybook_domain.orders import queries, service
from daybook_domain.orders.models import OrderStatus
from daybook_domain.orders.order_placement import PlacedOrder, place_orders
from daybook_domain.orders.order_validation import NewItem, NewOrder
from daybook_domain.reports.business_day import business_day
from daybook_platform.postgres.engine import create_engine, create_sessions
from tests.integration.domain.orders.shop_model import (
    TRANSITIONS,
    UNKNOWN_ID,
    UNKNOWN_INDEX,
    UNSHIPPED,
    Model,
    content,
    pick,
    sum_quantities,
)
from tests.support.factories.reports import build_report
from tests.support.postgres import truncate_tables

T = TypeVar("T")

indexes = st.integers(0, UNKNOWN_INDEX)
"""Arguments of `pick`."""
amounts = st.decimals("0.01", "99.99", places=2)
item_lists = st.lists(st.tuples(indexes, st.integers(1, 4)), min_size=1, max_size=3)
order_bodies = st.tuples(indexes, indexes, item_lists, st.sampled_from([None, "a", "b", "c"]))


class ShopMachine(RuleBasedStateMachine):
    """Operations that are executed on the database and on the model, with equal results."""

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: AsyncEngine) -> None:
        super().__init__()
        self.loop = loop
        self.engine = engine
        self.sessions = create_sessions(engine)
        self.model = Model()
        self.run(truncate_tables(engine))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def call(self, function: Any, *arguments: Any, **more: Any) -> Any:
        """Return the result of a service in a transaction of its own, or the code of its error."""

        async def work() -> Any:
            try:
                async with self.sessions.begin() as session:
                    return await function(session, *arguments, **more)
            except DaybookError as error:
                return error.code

        return self.run(work())

    def new_items(self, chosen: Sequence[tuple[int, int]]) -> tuple[NewItem, ...]:
        ids = sorted(self.model.prices)
        return tuple(NewItem(pick(ids, index), quantity) for index, quantity in chosen)

    @initialize()
    def create_initial_rows(self) -> None:
        for _ in range(2):
            self.add_user_with_two_addresses()
            self.add_product(price=Decimal("3.50"), stock=9)
        for user in range(2):
            self.place_batch(bodies=[(user, 0, [(user, 2)], None)])

    @rule(price=amounts, stock=st.integers(0, 9))
    def add_product(self, price: Decimal, stock: int) -> None:
        (product_id,) = self.call(products.add_products, [NewProduct("tea", None, price, stock)])
        self.model.prices[product_id], self.model.stock[product_id] = price, stock

    @rule()
    def add_user_with_two_addresses(self) -> None:
        name = f"user{len(self.model.users)}"
        user = self.call(users.add_user, NewUser(name, f"{name}@example.com"))
        self.model.users.append(user.id)
        for _ in range(2):
            new = NewAddress("Quay", "Bergen", "5003", "NO", is_primary=True)
            address = self.call(addresses.add_address, user.id, new)
            self.model.addresses[address.id] = user.id

    @rule(index=indexes, price=amounts, stock=st.none() | st.integers(0, 9))
    def change_product(self, index: int, price: Decimal, stock: int | None) -> None:
        product_id = pick(sorted(self.model.prices), index)
        changes = {"price": price} | ({} if stock is None else {"stock_quantity": stock})
        result = self.call(products.change_product, product_id, changes=changes)
        if product_id == UNKNOWN_ID:
            assert result == "product_not_found"
            return
        self.model.prices[product_id] = price
        if stock is not None:
            self.model.stock[product_id] = stock

    @rule(index=indexes)
    def delete_product(self, index: int) -> None:
        product_id = pick(sorted(self.model.prices), index)
        result = self.call(products.delete_product, product_id)
        if product_id == UNKNOWN_ID:
            assert result == "product_not_found"
        elif any(product_id in order.quantities for order in self.model.orders.values()):
            assert result == "in_use"
        else:
            assert result is None
            del self.model.prices[product_id], self.model.stock[product_id]

    @rule(index=indexes)
    def delete_address(self, index: int) -> None:
        address_id = pick(sorted(self.model.addresses), index)
        user_id = self.model.addresses.get(address_id, pick(self.model.users, 0))
        result = self.call(addresses.delete_address, address_id, user_id=user_id)
        if address_id == UNKNOWN_ID:
            assert result in {"address_not_found", "user_not_found"}
        elif any(order.address == address_id for order in self.model.orders.values()):
            assert result == "in_use"
        else:
            assert result is None
            del self.model.addresses[address_id]

    @rule(bodies=st.lists(order_bodies, min_size=1, max_size=5))
    def place_batch(self, bodies: list[Any]) -> None:
        orders = [
            self.new_order(user, address, chosen, external_id)
            for user, address, chosen, external_id in bodies
        ]
        for order, result in zip(orders, self.call(place_orders, orders), strict=True):
            self.compare_placement(order, result)

    def new_order(
        self, user: int, address: int, chosen: list[tuple[int, int]], external_id: str | None
    ) -> NewOrder:
        user_id = pick(self.model.users, user)
        own = [key for key, owner in self.model.addresses.items() if owner == user_id]
        address_id = pick(own if address < 8 else sorted(self.model.addresses), address)
        return NewOrder(user_id, address_id, self.new_items(chosen), external_id)

    def compare_placement(self, order: NewOrder, result: PlacedOrder | DaybookError) -> None:
        existing = self.model.find_by_external_id(order.external_id)
        outcome = result.code if isinstance(result, DaybookError) else result.duplicate
        if existing is not None and existing[1].content == content(order):
            assert outcome is True
            assert isinstance(result, PlacedOrder)
            assert result.order_id == existing[0]
        elif existing is not None:
            assert outcome == "external_id_taken"
        else:
            assert outcome == (self.model.expected_error(order) or False)
        if outcome is False:
            assert isinstance(result, PlacedOrder)
            self.model.place(result.order_id, order)

    @precondition(lambda self: self.model.orders)
    @rule(index=indexes, status=st.sampled_from(OrderStatus))
    def change_status(self, index: int, status: OrderStatus) -> None:
        order_id = pick(sorted(self.model.orders), index)
        result = self.call(service.change, order_id, changes={"status": status})
        if order_id == UNKNOWN_ID:
            assert result == "order_not_found"
            return
        order = self.model.orders[order_id]
        if status == order.status:
            assert result.status is status
        elif (order.status, status) not in TRANSITIONS:
            assert result == "status_forbids"
        else:
            order.status = result.status.value
            if status is OrderStatus.CANCELLED:
                self.model.restock(order)

    @precondition(lambda self: self.model.orders)
    @rule(index=indexes, chosen=item_lists)
    def change_items(self, index: int, chosen: list[tuple[int, int]]) -> None:
        order_id = pick(sorted(self.model.orders), index)
        items = self.new_items(chosen)
        result = self.call(service.change, order_id, changes={"items": items})
        if order_id == UNKNOWN_ID:
            assert result == "order_not_found"
            return
        order = self.model.orders[order_id]
        quantities = sum_quantities((item.product_id, item.quantity) for item in items)
        if quantities == order.quantities:
            assert result.id == order_id
        elif order.status != "pending":
            assert result == "status_forbids"
        elif any(item.product_id not in self.model.prices for item in items):
            assert result == "unknown_reference"
        elif not quantities <= self.model.stock + order.quantities:
            assert result == "out_of_stock"
        else:
            self.model.restock(order)
            order.items = [
                (item.product_id, item.quantity, self.model.prices[item.product_id])
                for item in items
            ]
            self.model.stock.subtract(order.quantities)
            assert self.is_rebuild_requested() or not order.reported

    @rule(index=indexes)
    def delete_order(self, index: int) -> None:
        order_id = pick(sorted(self.model.orders), index)
        result = self.call(service.delete, order_id)
        if order_id == UNKNOWN_ID:
            assert result == "order_not_found"
        elif self.model.orders[order_id].reported:
            assert result == "order_reported"
        else:
            assert result is None
            order = self.model.orders.pop(order_id)
            if order.status in UNSHIPPED:
                self.model.restock(order)

    @rule()
    def build_reports(self) -> None:
        for order in self.model.orders.values():
            order.reported = True
        self.run(self.build())

    async def build(self) -> None:
        """Build the reports of all days with orders, and delete all requested runs."""
        async with self.sessions() as session:
            orders, _ = await queries.list_orders(session, limit=1000, offset=0)
        for day in {order.created_at.astimezone(UTC).date() for order in orders}:
            await build_report(self.engine, business_day(day, timezone="UTC"))
        async with self.engine.begin() as connection:
            await connection.execute(text("DELETE FROM report_runs"))

    def is_rebuild_requested(self) -> bool:
        """Return whether a rebuild was requested since the last build."""

        async def has_runs() -> bool:
            async with self.engine.connect() as connection:
                runs = await connection.execute(text("SELECT count(*) FROM report_runs"))
                return bool(runs.scalar_one())

        return self.run(has_runs())

    @invariant()
    def database_equals_model(self) -> None:
        stored_products, stored_orders = self.run(self.read_database())
        model = self.model
        assert stored_products == {
            product_id: (price, model.stock[product_id])
            for product_id, price in model.prices.items()
        }
        assert min(model.stock.values(), default=0) >= 0
        assert stored_orders == {
            order_id: (
                order.user,
                order.address,
                order.external_id,
                order.status,
                sum((quantity * price for _, quantity, price in order.items), Decimal(0)),
                order.items,
            )
            for order_id, order in model.orders.items()
        }

    async def read_database(self) -> tuple[dict[int, Any], dict[int, Any]]:
        async with self.sessions() as session:
            rows = await session.execute(text("SELECT id, price, stock_quantity FROM products"))
            stored_products = {row.id: (row.price, row.stock_quantity) for row in rows}
            orders, _ = await queries.list_orders(session, limit=1000, offset=0)
            items = await queries.list_items(session, [order.id for order in orders if order.id])
        return stored_products, {
            order.id: (
                order.user_id,
                order.delivery_address_id,
                order.external_id,
                order.status,
                order.total_price,
                [(one.product_id, one.quantity, one.price_at_order) for one in items[order.id]],
            )
            for order in orders
            if order.id is not None
        }


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return an event loop for the state machine, whose rules are synchronous."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_catalogue_and_orders_behave_as_the_model(
    loop: asyncio.AbstractEventLoop, postgres_url: str
) -> None:
    engine = create_engine(postgres_url, application="tests", pool_size=1)

    class BoundShopMachine(ShopMachine):
        def __init__(self) -> None:
            super().__init__(loop, engine)

    run_state_machine_as_test(
        BoundShopMachine,
        settings=settings(
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    loop.run_until_complete(engine.dispose())
