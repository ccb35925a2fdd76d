"""How does a test get valid rows, stating only what it is about?"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.catalog.models import Address, Product, User
from daybook_domain.orders.models import Order, OrderItem


async def make_user(session: AsyncSession, *, username: str = "ada") -> User:
    """Add a user."""
    user = User(username=username, email=f"{username}@shop.example")
    session.add(user)
    await session.flush()
    return user


async def make_address(session: AsyncSession, *, user: User | None = None) -> Address:
    """Add an address, of a new user unless told otherwise."""
    user = user or await make_user(session)
    assert user.id is not None
    address = Address(
        user_id=user.id, street="Baker Street 1", city="London", zip_code="NW1", country="GB"
    )
    session.add(address)
    await session.flush()
    return address


async def make_product(session: AsyncSession, *, name: str = "Lamp") -> Product:
    """Add a product."""
    product = Product(name=name, price=Decimal("9.90"), stock_quantity=1_000)
    session.add(product)
    await session.flush()
    return product


async def make_order(
    session: AsyncSession,
    *,
    created_at: datetime,
    quantities: Sequence[int] = (1,),
    address: Address,
    product: Product,
) -> Order:
    """Add an order with one item for each of `quantities`."""
    assert address.id is not None
    assert product.id is not None
    order = Order(
        user_id=address.user_id,
        delivery_address_id=address.id,
        total_price=product.price * sum(quantities),
        created_at=created_at,
        order_date=created_at,
    )
    session.add(order)
    await session.flush()
    assert order.id is not None
    session.add_all(
        OrderItem(
            order_id=order.id,
            product_id=product.id,
            quantity=quantity,
            price_at_order=product.price,
        )
        for quantity in quantities
    )
    await session.flush()
    return order
