"""In-memory model of catalogue and orders, with which the services are compared."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from daybook_domain.orders.order_validation import NewOrder

UNSHIPPED = {"pending", "paid"}
TRANSITIONS = {
    ("pending", "paid"),
    ("paid", "shipped"),
    ("shipped", "delivered"),
    ("pending", "cancelled"),
    ("paid", "cancelled"),
    *((status, "completed") for status in ("pending", "paid", "shipped", "delivered")),
}
UNKNOWN_ID = 999_999
"""An id that no row has."""
UNKNOWN_INDEX = 12
"""An index for which `pick` returns `UNKNOWN_ID`."""


@dataclass
class ModelOrder:
    """An order of the model."""

    user: int
    address: int
    items: list[tuple[int, int, Decimal]]
    """Product id, quantity and price of each item."""
    external_id: str | None
    content: tuple[int, int, Counter[int]]
    status: str = "pending"
    reported: bool = False

    @property
    def quantities(self) -> Counter[int]:
        return sum_quantities((product, quantity) for product, quantity, _ in self.items)


@dataclass
class Model:
    """The expected content of the database."""

    prices: dict[int, Decimal] = field(default_factory=dict)
    stock: Counter[int] = field(default_factory=Counter)
    users: list[int] = field(default_factory=list)
    addresses: dict[int, int] = field(default_factory=dict)
    """User id by address id."""
    orders: dict[int, ModelOrder] = field(default_factory=dict)

    def expected_error(self, order: NewOrder) -> str | None:
        """Return the code of the error that an order must cause, if any."""
        if order.user_id not in self.users or order.delivery_address_id not in self.addresses:
            return "unknown_reference"
        if self.addresses[order.delivery_address_id] != order.user_id:
            return "foreign_address"
        if any(item.product_id not in self.prices for item in order.items):
            return "unknown_reference"
        quantities = sum_quantities((item.product_id, item.quantity) for item in order.items)
        return None if quantities <= self.stock else "out_of_stock"

    def find_by_external_id(self, external_id: str | None) -> tuple[int, ModelOrder] | None:
        """Return id and order, or None; also None if `external_id` is None."""
        return next(
            (
                (order_id, order)
                for order_id, order in self.orders.items()
                if external_id is not None and order.external_id == external_id
            ),
            None,
        )

    def place(self, order_id: int, order: NewOrder) -> None:
        items = [(one.product_id, one.quantity, self.prices[one.product_id]) for one in order.items]
        self.orders[order_id] = ModelOrder(
            order.user_id, order.delivery_address_id, items, order.external_id, content(order)
        )
        self.stock.subtract(self.orders[order_id].quantities)

    def restock(self, order: ModelOrder) -> None:
        self.stock.update(order.quantities)


def sum_quantities(items: Iterable[tuple[int, int]]) -> Counter[int]:
    """Return the total quantity by product id."""
    total: Counter[int] = Counter()
    for product, quantity in items:
        total[product] += quantity
    return total


def content(order: NewOrder) -> tuple[int, int, Counter[int]]:
    """Return what must be equal in two orders with the same external id."""
    quantities = sum_quantities((item.product_id, item.quantity) for item in order.items)
    return order.user_id, order.delivery_address_id, quantities


def pick(ids: Sequence[int], index: int) -> int:
    """Return one of `ids`, or `UNKNOWN_ID` if there are none or for `UNKNOWN_INDEX`."""
    return ids[index % len(ids)] if ids and index < UNKNOWN_INDEX else UNKNOWN_ID
