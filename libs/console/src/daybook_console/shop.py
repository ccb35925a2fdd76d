"""What does the demo shop sell, to whom, and on which days?

Everything follows from the seed: the same seed gives the same shop, and each date the same orders.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.catalog.models import Address, Product, User
from daybook_domain.orders.models import Order, OrderItem, OrderStatus
from daybook_domain.reports.business_day import BusinessDay, business_day, local_date

FIRST_NAMES = ("Ada", "Bela", "Chloe", "Dmitri", "Emil", "Farah", "Goran", "Hanna", "Ines", "Kaya")
LAST_NAMES = ("Aydin", "Berg", "Costa", "Duarte", "Evans", "Fischer", "Garcia", "Haddad", "Ivanova")
STREETS = ("Baker Street", "Calle Mayor", "Hauptstrasse", "Rue Cler", "Via Roma")
CITIES = (("London", "GB"), ("Madrid", "ES"), ("Berlin", "DE"), ("Paris", "FR"), ("Rome", "IT"))
GOODS = (
    "Notebook",
    "Pencil",
    "Lamp",
    "Mug",
    "Backpack",
    "Desk",
    "Chair",
    "Kettle",
    "Clock",
    "Vase",
)
MAKES = ("Plain", "Oak", "Linen", "Copper", "Travel")
USERS = 200
SEED = 1
STOCK = 100_000
ORDERS_PER_DAY = 120
ITEMS_PER_ORDER = (1, 5)
"""An order in fifty has no items at all, as orders that were emptied do."""


@dataclass(frozen=True)
class Shop:
    """The keys of what the shop's orders refer to, in the order in which they were generated."""

    addresses: list[tuple[int, int]]
    """(user id, id of the user's address)"""
    products: list[tuple[int, Decimal]]
    """(product id, price)"""


@dataclass(frozen=True)
class DemoOrder:
    """One order, with its items as (product id, quantity, price)."""

    user_id: int
    address_id: int
    created_at: datetime
    items: list[tuple[int, int, Decimal]]

    @property
    def total(self) -> Decimal:
        """What all items cost together."""
        return sum((price * quantity for _, quantity, price in self.items), Decimal(0))


def users(seed: int) -> list[User]:
    """Return the shop's users."""
    random = Random(f"{seed} users")
    names = [(random.choice(FIRST_NAMES), random.choice(LAST_NAMES)) for _ in range(USERS)]
    return [
        User(
            username=f"{first}.{last}.{number}".lower(),
            email=f"{first}.{last}.{number}@shop.example".lower(),
            description=f"{first} {last}",
        )
        for number, (first, last) in enumerate(names, start=1)
    ]


def address(seed: int, user_id: int, number: int) -> Address:
    """Return where user number `number` has things delivered to."""
    random = Random(f"{seed} address {number}")
    city, country = random.choice(CITIES)
    return Address(
        user_id=user_id,
        street=f"{random.choice(STREETS)} {random.randint(1, 200)}",
        city=city,
        zip_code=f"{random.randint(10_000, 99_999)}",
        country=country,
        is_primary=True,
    )


def products(seed: int) -> list[Product]:
    """Return what the shop sells."""
    random = Random(f"{seed} products")
    return [
        Product(
            name=f"{make} {thing.lower()}",
            description=f"A {make.lower()} {thing.lower()} of the demo shop",
            price=Decimal(random.randint(199, 19_999)) / 100,
            stock_quantity=STOCK,
        )
        for make in MAKES
        for thing in GOODS
    ]


def orders(seed: int, shop: Shop, day: BusinessDay, *, until: datetime) -> Iterator[DemoOrder]:
    """Yield the orders of `day` before `until`, by time; the same for the same seed and date."""
    random = Random(f"{seed} orders {day.date}")
    length = (day.ends_at - day.starts_at).total_seconds()
    count = round(ORDERS_PER_DAY * random.uniform(0.7, 1.3))
    seconds = sorted(random.uniform(0, length) for _ in range(count))
    for second in seconds:
        user_id, address_id = random.choice(shop.addresses)
        wanted = 0 if random.random() < 0.02 else random.randint(*ITEMS_PER_ORDER)
        chosen = random.sample(shop.products, wanted)
        order = DemoOrder(
            user_id=user_id,
            address_id=address_id,
            created_at=day.starts_at + timedelta(seconds=int(second)),
            items=[(product, random.randint(1, 4), price) for product, price in chosen],
        )
        if order.created_at < until:
            yield order


async def load(session: AsyncSession, *, seed: int, days: int, timezone: str, now: datetime) -> int:
    """Add the orders of the last `days` days and of today to each of these days that has none.

    Creates the shop first where there is none. Returns how many orders were added.
    """
    shop = await ensure(session, seed)
    today = local_date(now, timezone=timezone)
    added = 0
    for back in range(days, -1, -1):
        day = business_day(today - timedelta(days=back), timezone=timezone)
        if not await _has_orders(session, day):
            added += await _add_orders(session, list(orders(seed, shop, day, until=now)))
    return added


async def ensure(session: AsyncSession, seed: int) -> Shop:
    """Return the shop of `seed`, which is created where there is none."""
    return await _find_shop(session, seed) or await _create_shop(session, seed)


async def _find_shop(session: AsyncSession, seed: int) -> Shop | None:
    names = [user.username for user in users(seed)]
    addresses = (
        await session.exec(
            select(User.id, Address.id)
            .join(Address, col(Address.user_id) == col(User.id))
            .where(col(User.username).in_(names), col(Address.is_primary))
            .order_by(col(User.id))
        )
    ).all()
    sold = (
        await session.exec(
            select(col(Product.id), col(Product.price))
            .where(col(Product.name).in_([thing.name for thing in products(seed)]))
            .order_by(col(Product.id))
        )
    ).all()
    if not addresses or not sold:
        return None
    return Shop(
        addresses=[(user, place) for user, place in addresses if user and place],
        products=[(product, price) for product, price in sold if product],
    )


async def _create_shop(session: AsyncSession, seed: int) -> Shop:
    people = users(seed)
    sold = products(seed)
    session.add_all([*people, *sold])
    await session.flush()
    places = [
        address(seed, user.id, number)
        for number, user in enumerate(people, start=1)
        if user.id is not None
    ]
    session.add_all(places)
    await session.flush()
    return Shop(
        addresses=[(place.user_id, place.id) for place in places if place.id is not None],
        products=[(thing.id, thing.price) for thing in sold if thing.id is not None],
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
