"""Generated users, addresses, products and orders of the demo shop.

Everything depends on the seed only: the same seed generates the same shop, and the same orders for
each date.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

from daybook_domain.catalog.models import Address, Product, User
from daybook_domain.reports.business_day import BusinessDay

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
"""Bounds of the number of items."""


@dataclass(frozen=True)
class DemoShop:
    """Keys of the stored addresses and products, in the order of their generation."""

    addresses: list[tuple[int, int]]
    """(user id, address id)"""
    products: list[tuple[int, Decimal]]
    """(product id, price)"""


@dataclass(frozen=True)
class DemoOrder:
    """A generated order."""

    user_id: int
    address_id: int
    created_at: datetime
    items: list[tuple[int, int, Decimal]]
    """(product id, quantity, price)"""

    @property
    def total(self) -> Decimal:
        """Sum of the items' prices."""
        return sum((price * quantity for _, quantity, price in self.items), Decimal(0))


def generate_users(seed: int) -> list[User]:
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


def generate_address(seed: int, user_id: int, number: int) -> Address:
    """Return the delivery address of the user at position `number` of the generated users."""
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


def generate_products(seed: int) -> list[Product]:
    """Return the shop's products."""
    random = Random(f"{seed} products")
    return [
        Product(
            name=f"{make} {item.lower()}",
            description=f"A {make.lower()} {item.lower()} of the demo shop",
            price=Decimal(random.randint(199, 19_999)) / 100,
            stock_quantity=STOCK,
        )
        for make in MAKES
        for item in GOODS
    ]


def generate_orders(
    seed: int, shop: DemoShop, day: BusinessDay, *, until: datetime
) -> Iterator[DemoOrder]:
    """Yield the orders of `day` before `until`, by time."""
    random = Random(f"{seed} orders {day.date}")
    length = (day.ends_at - day.starts_at).total_seconds()
    count = round(ORDERS_PER_DAY * random.uniform(0.7, 1.3))
    seconds = sorted(random.uniform(0, length) for _ in range(count))
    for second in seconds:
        user_id, address_id = random.choice(shop.addresses)
        chosen = random.sample(shop.products, random.randint(*ITEMS_PER_ORDER))
        order = DemoOrder(
            user_id=user_id,
            address_id=address_id,
            created_at=day.starts_at + timedelta(seconds=int(second)),
            items=[(product, random.randint(1, 4), price) for product, price in chosen],
        )
        if order.created_at < until:
            yield order
