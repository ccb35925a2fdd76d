"""Creation, change and deletion of products."""

import asyncio
from decimal import Decimal

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.catalog import products, queries
from daybook_domain.catalog.errors import StillReferenced
from daybook_domain.catalog.products import NewProduct
from daybook_domain.orders.order_placement import place_orders
from daybook_domain.orders.order_validation import NewItem, NewOrder
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.catalog.conftest import OrderTea
from tests.support.factories.shop import get_stock
from tests.support.postgres import wait_for_blocked_transaction


async def test_products_get_ids_in_the_order_of_the_input(sessions: Sessions) -> None:
    new = [NewProduct(f"pot {n}", None, Decimal("9.90"), n) for n in range(200)]
    async with sessions.begin() as session:
        ids = await products.add_products(session, new)
        stored = [await queries.get_product(session, product_id) for product_id in ids]

    assert [(one.name, one.price, one.stock_quantity) for one in stored] == [
        (one.name, one.price, one.stock_quantity) for one in new
    ]


async def test_a_new_stock_waits_for_a_concurrent_order_and_replaces_what_it_leaves(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    async def restock() -> None:
        async with sessions.begin() as session:
            await products.change_product(session, 1, changes={"stock_quantity": 50})

    async with sessions.begin() as session:
        await place_orders(session, [NewOrder(1, 1, (NewItem(1, 5),))])
        restocking = asyncio.create_task(restock())
        await wait_for_blocked_transaction(engine)
    await restocking

    assert await get_stock(engine) == 50


async def test_a_new_name_does_not_overwrite_the_stock_after_a_concurrent_order(
    engine: AsyncEngine, sessions: Sessions, order_tea: OrderTea
) -> None:
    async with sessions.begin() as session:
        product = await queries.get_product(session, 1)
        # Read before the order, written after it: only the changed columns may be written.
        await order_tea(5)
        product = await products.change_product(session, 1, changes={"name": "green tea"})
    assert (product.name, product.stock_quantity) == ("green tea", 995)
    assert await get_stock(engine) == 995


async def test_a_product_with_orders_cannot_be_deleted(
    sessions: Sessions, order_tea: OrderTea
) -> None:
    await order_tea()
    async with sessions.begin() as session:
        with pytest.raises(StillReferenced, match="Orders contain product 1"):
            await products.delete_product(session, 1)
    async with sessions() as session:
        await queries.get_product(session, 1)
