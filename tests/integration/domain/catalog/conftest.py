"""Fixtures of the catalogue tests: a shop with a user, an address and a product."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.orders.order_placement import place_orders
from daybook_domain.orders.order_validation import NewItem, NewOrder
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.shop import reset_shop

OrderTea = Callable[..., Awaitable[None]]


@pytest.fixture(autouse=True)
async def shop(engine: AsyncEngine) -> None:
    """Create user ada, her primary address and 1000 teas at 3.50, each with id 1."""
    await reset_shop(engine)


@pytest.fixture
def order_tea(sessions: Sessions) -> OrderTea:
    """Return a function that places an order of tea in a transaction of its own."""

    async def order_tea(quantity: int = 1) -> None:
        async with sessions.begin() as session:
            await place_orders(session, [NewOrder(1, 1, (NewItem(1, quantity),))])

    return order_tea
