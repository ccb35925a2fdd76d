"""Demo shop in the database: creation, and orders for days without any."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_console.demo_generator import (
    DemoOrder,
    DemoShop,
    generate_address,
    generate_orders,
    generate_products,
    generate_users,
)
from daybook_domain.catalog.models import Address, Product, User
from daybook_domain.orders.models import Order, OrderItem, OrderStatus
from daybook_domain.reports.business_day import BusinessDay, business_day, local_date


async def load(session: AsyncSession, *, seed: int, days: int, timezone: str, now: datetime) -> int:
    """Add orders to each of the last `days` days, and to today, that has none; return their number.

    Creates the shop if it does not exist.
    """
    shop = await ensure(session, seed)
    today = local_date(now, timezone=timezone)
    added = 0
    for days_ago in range(days, -1, -1):
        day = business_day(today - timedelta(days=days_ago), timezone=timezone)
        if not await _has_orders(session, day):
            added += await _add_orders(session, list(generate_orders(seed, shop, day, until=now)))
    return added


async def ensure(session: AsyncSession, seed: int) -> DemoShop:
    """Return the shop of `seed`; create it if it does not exist."""
    return await _find_shop(session, seed) or await _create_shop(session, seed)


async def _find_shop(session: AsyncSession, seed: int) -> DemoShop | None:
    names = [user.username for user in generate_users(seed)]
    addresses = (
        await session.exec(
            select(User.id, Address.id)
            .join(Address, col(Address.user_id) == col(User.id))
            .where(col(User.username).in_(names), col(Address.is_primary))
            .order_by(col(User.id))
        )
    ).all()
    stored_products = (
        await session.exec(
            select(col(Product.id), col(Product.price))
            .where(col(Product.name).in_([product.name for product in generate_products(seed)]))
            .order_by(col(Product.id))
        )
    ).all()
    if not addresses or not stored_products:
        return None
    return DemoShop(
        addresses=[(user, address) for user, address in addresses if user and address],
        products=[(product, price) for product, price in stored_products if product],
    )


async def _create_shop(session: AsyncSession, seed: int) -> DemoShop:
    users = generate_users(seed)
    products = generate_products(seed)
    session.add_all([*users, *products])
    await session.flush()
    addresses = [
        generate_address(seed, user.id, number)
        for number, user in enumerate(users, start=1)
        if user.id is not None
    ]
    session.add_all(addresses)
    await session.flush()
    return DemoShop(
        addresses=[
            (address.user_id, address.id) for address in addresses if address.id is not None
        ],
        products=[(product.id, product.price) for product in products if product.id is not None],
    )


async def _has_orders(session: AsyncSession, day: BusinessDay) -> bool:
    statement = select(
        select(Order.id)
        .where(Order.created_at >= day.starts_at, Order.created_at < day.ends_at)
        .exists()
    )
    return bool((await session.exec(statement)).one())


async def _add_orders(session: AsyncSession, batch: list[DemoOrder]) -> int:
    if not batch:
        return 0
    rows = [
        {
            "user_id": order.user_id,
            "delivery_address_id": order.address_id,
            "total_price": order.total,
            "status": OrderStatus.PAID,
            "order_date": order.created_at,
            "created_at": order.created_at,
        }
        for order in batch
    ]
    inserted = await session.execute(
        insert(Order).returning(col(Order.id), sort_by_parameter_order=True), rows
    )
    items: list[dict[str, Any]] = [
        {
            "order_id": order_id,
            "product_id": product,
            "quantity": quantity,
            "price_at_order": price,
            "created_at": order.created_at,
        }
        for order_id, order in zip(inserted.scalars(), batch, strict=True)
        for product, quantity, price in order.items
    ]
    await session.execute(insert(OrderItem), items)
    return len(batch)
