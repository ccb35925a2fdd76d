"""Decisions on the orders of a batch."""

import hashlib
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybook_domain.catalog.stock import LockedProduct
from daybook_domain.errors import DaybookError
from daybook_domain.orders.errors import (
    AddressOfAnotherUser,
    ExternalIdTaken,
    NoItems,
    OutOfStock,
    TotalTooLarge,
    UnknownReference,
)
from daybook_domain.orders.models import OrderStatus
from daybook_domain.orders.order_validation import (
    AcceptedOrder,
    DuplicateInBatch,
    ExistingOrder,
    NewItem,
    NewOrder,
    OrderDecision,
    ReferenceData,
    quantities_by_product,
    validate_orders,
)
from daybook_domain.validation import MAX_INTEGER

PRICE = Decimal("3.50")


def reference_data(
    *, stock: int = 10, existing: dict[str, ExistingOrder] | None = None
) -> ReferenceData:
    return ReferenceData(
        users={1, 2},
        addresses={1: 1, 2: 2},
        products={1: LockedProduct(PRICE, stock), 2: LockedProduct(Decimal("0.01"), MAX_INTEGER)},
        existing=existing or {},
    )


def order(*items: tuple[int, int], user: int = 1, at: int = 1, key: str | None = None) -> NewOrder:
    return NewOrder(user, at, tuple(NewItem(*item) for item in items), key)


def decide(order: NewOrder) -> OrderDecision:
    (outcome,) = validate_orders([order], reference_data())
    return outcome


def test_an_order_gets_the_current_prices() -> None:
    outcome = decide(order((1, 2), (2, 5), (1, 1)))
    assert isinstance(outcome, AcceptedOrder)
    assert outcome.prices == (PRICE, Decimal("0.01"), PRICE)
    assert outcome.total_price == Decimal("10.55")


@pytest.mark.parametrize(
    ("rejected", "kind", "field"),
    [
        (order((1, 1), user=9), UnknownReference, "user_id"),
        (order((1, 1), at=9), UnknownReference, "delivery_address_id"),
        (order((1, 1), at=2), AddressOfAnotherUser, "delivery_address_id"),
        (order((1, 1), (9, 1)), UnknownReference, "items/1/product_id"),
        (order(), NoItems, "items"),
        (order((2, 1), (1, 6), (1, 5)), OutOfStock, "items/1/quantity"),
        (order(*[(2, MAX_INTEGER)] * 500), TotalTooLarge, "items"),
    ],
)
def test_an_error_names_its_field(rejected: NewOrder, kind: type[DaybookError], field: str) -> None:
    outcome = decide(rejected)
    assert isinstance(outcome, kind)
    assert outcome.field == field


def test_out_of_stock_states_product_requested_quantity_and_stock() -> None:
    outcome = decide(order((1, 6), (1, 5)))
    assert isinstance(outcome, OutOfStock)
    assert outcome.detail == "11 of product 1 requested, 10 in stock"


def test_a_rejected_order_takes_no_stock() -> None:
    outcomes = validate_orders(
        [order((2, 1), (1, 11)), order((1, 4)), order((1, 7)), order((1, 6))], reference_data()
    )
    assert [type(one) for one in outcomes] == [OutOfStock, AcceptedOrder, OutOfStock, AcceptedOrder]


def test_a_repeated_order_is_a_duplicate_of_the_first() -> None:
    outcomes = validate_orders(
        [
            order((1, 1), (1, 2), key="a"),
            order((1, 3), key="a"),
            order((1, 4), key="a"),
            order((1, 3), at=2, user=2, key="a"),
        ],
        reference_data(stock=3),
    )
    assert outcomes[1] == DuplicateInBatch(of=0)
    assert isinstance(outcomes[2], ExternalIdTaken)
    assert isinstance(outcomes[3], ExternalIdTaken)


def test_an_existing_order_is_found_even_if_its_references_no_longer_exist() -> None:
    again = order((9, 3), user=7, at=8, key="a")
    stored = ExistingOrder(order_id=5, total_price=Decimal(1), digest=again.digest())
    outcomes = validate_orders(
        [again, order((1, 1), key="a")], reference_data(existing={"a": stored})
    )
    assert outcomes[0] == stored
    assert isinstance(outcomes[1], ExternalIdTaken)


def test_a_rejected_order_does_not_use_up_its_external_id() -> None:
    outcomes = validate_orders([order((1, 11), key="a"), order((1, 10), key="a")], reference_data())
    assert [type(one) for one in outcomes] == [OutOfStock, AcceptedOrder]


ITEMS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6)), max_size=4)
ORDERS = st.lists(
    st.builds(
        lambda items, user, at, key: order(*items, user=user, at=at, key=key),
        ITEMS,
        st.integers(1, 3),
        st.integers(1, 3),
        st.sampled_from([None, "a", "b", "c"]),
    ),
    max_size=12,
)


@given(orders=ORDERS, stock=st.integers(0, 20))
def test_stock_is_never_exceeded_and_no_order_that_fits_is_rejected(
    orders: list[NewOrder], stock: int
) -> None:
    remaining = Counter({1: stock, 2: MAX_INTEGER})
    seen: set[str | None] = {None}
    for one, outcome in zip(
        orders, validate_orders(orders, reference_data(stock=stock)), strict=True
    ):
        if isinstance(outcome, AcceptedOrder):
            remaining.subtract(quantities_by_product(one.items))
            assert one.external_id is None or one.external_id not in seen
            seen.add(one.external_id)
        if isinstance(outcome, OutOfStock):
            assert any(
                remaining[product] < n for product, n in quantities_by_product(one.items).items()
            )
    assert min(remaining.values()) >= 0


@given(orders=ORDERS)
def test_a_second_delivery_of_a_batch_accepts_no_order(orders: list[NewOrder]) -> None:
    with_keys = [one for one in orders if one.external_id is not None]
    outcomes = validate_orders(with_keys, reference_data())
    stored = {
        outcome.order.external_id or "": ExistingOrder(n, outcome.total_price, outcome.digest)
        for n, outcome in enumerate(outcomes)
        if isinstance(outcome, AcceptedOrder)
    }
    again = validate_orders(with_keys, reference_data(stock=0, existing=stored))
    for before, after in zip(outcomes, again, strict=True):
        if isinstance(before, AcceptedOrder | DuplicateInBatch):
            assert isinstance(after, ExistingOrder)
        assert not isinstance(after, AcceptedOrder)


@given(items=ITEMS, seed=st.randoms())
def test_the_digest_is_independent_of_the_grouping_of_quantities(
    items: list[tuple[int, int]], seed: object
) -> None:
    single = [(product, 1) for product, quantity in items for _ in range(quantity)]
    seed.shuffle(single)  # type: ignore[attr-defined] # st.randoms() has no type of its own
    assert order(*single).digest() == order(*items).digest()
    assert order(*items, (1, 1)).digest() != order(*items).digest()
    assert order(*items, at=2).digest() != order(*items).digest()
    assert order(*items, user=2).digest() != order(*items).digest()


def test_the_digest_depends_on_a_status_other_than_pending() -> None:
    pending, paid = (
        NewOrder(1, 2, (NewItem(3, 4),), "a", status)
        for status in (OrderStatus.PENDING, OrderStatus.PAID)
    )

    # The content whose digests earlier releases have stored.
    assert pending.digest() == hashlib.sha256(b"1 2 [(3, 4)]").hexdigest()
    assert paid.digest() != pending.digest()
