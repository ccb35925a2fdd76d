"""How does a batch of orders become rows, with its stock taken?

A handful of statements, however many orders there are; REST places a batch of one. What is looked
at is held until the transaction ends, in the order that catalog/stock.py tells, so that `allot`
decides in peace: a pure function from the orders and what the database said to one outcome each.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.catalog import stock
from daybook_domain.errors import DaybookError
from daybook_domain.orders.order_validation import (
    AcceptedOrder,
    DuplicateInBatch,
    ExistingOrder,
    NewItem,
    NewOrder,
    OrderDecision,
    ReferenceData,
    validate_orders,
)
from daybook_domain.postgres_errors import violated_constraint

__all__ = ["NewItem", "NewOrder", "PlacedOrder", "place_orders"]

# The parts of a UNION ALL are read one after the other: users first.
_HOLD = text(
    """
    WITH held_users AS MATERIALIZED (
        SELECT id FROM users WHERE id = ANY(CAST(:users AS bigint[])) ORDER BY id FOR KEY SHARE
    ), held_addresses AS MATERIALIZED (
        SELECT id, user_id FROM addresses WHERE id = ANY(CAST(:addresses AS bigint[]))
        ORDER BY id FOR KEY SHARE
    )
    SELECT NULL AS address_id, id AS user_id FROM held_users
    UNION ALL SELECT id, user_id FROM held_addresses
    """
)
_EARLIER = text(
    """
    SELECT external_id, id, total_price, request_digest FROM orders
    WHERE external_id = ANY(CAST(:external_ids AS text[]))
    """
)
# Ids in the order of the batch, rows in the order of their external ids: two batches that share
# several wait for each other at the first that they share, and not crosswise. Items find the id of
# their order by its place in an array: a join would be planned once, for a batch of one, and kept
# for a batch of a thousand.
_WRITE = text(
    """
    WITH placed AS MATERIALIZED (
        SELECT nextval(pg_get_serial_sequence('orders', 'id')) AS id, asked.*
        FROM unnest(
            CAST(:external_ids AS text[]), CAST(:digests AS text[]), CAST(:users AS bigint[]),
            CAST(:addresses AS bigint[]), CAST(:totals AS numeric[])
        ) WITH ORDINALITY AS asked(external_id, digest, user_id, address_id, total, place)
    ), written AS (
        INSERT INTO orders (id, external_id, request_digest, user_id, delivery_address_id,
            total_price, status)
        OVERRIDING SYSTEM VALUE
        SELECT id, external_id, digest, user_id, address_id, total, 'pending'
        FROM placed ORDER BY external_id
    ), batch AS MATERIALIZED (
        SELECT array_agg(id ORDER BY place) AS ids FROM placed
    ), items AS (
        INSERT INTO order_items (order_id, product_id, quantity, price_at_order)
        SELECT (SELECT ids FROM batch)[item.place], item.product_id, item.quantity, item.price
        FROM unnest(
            CAST(:places AS integer[]), CAST(:products AS bigint[]), CAST(:quantities AS integer[]),
            CAST(:prices AS numeric[])
        ) AS item(place, product_id, quantity, price)
    )
    SELECT ids FROM batch
    """
)


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """An order that exists; `duplicate`: it did already, of the same content."""

    order_id: int
    total_price: Decimal
    duplicate: bool


async def place_orders(
    session: AsyncSession, orders: Sequence[NewOrder]
) -> list[PlacedOrder | DaybookError]:
    """Place the orders that can be placed; one outcome for each, in their order.

    A refusal is a value, not raised, so that it costs no other order its place: `OutOfStock`,
    `ExternalIdTaken`, `UnknownReference`, `ForeignAddress`, `NoItems`, `TotalTooLarge`.
    """
    users, addresses, products = await _hold(session, orders)
    while True:
        earlier = await _earlier(session, orders)
        known = ReferenceData(users=users, addresses=addresses, products=products, earlier=earlier)
        outcomes = validate_orders(orders, known)
        allotted = [outcome for outcome in outcomes if isinstance(outcome, AcceptedOrder)]
        if not allotted:
            return _told(outcomes, ids=[])
        named = any(one.order.external_id is not None for one in allotted)
        try:
            async with session.begin_nested() if named else nullcontext():
                ids = await _write(session, allotted)
        except IntegrityError as error:
            if violated_constraint(error) != "uq_orders_external_id":
                raise
            # Another transaction has placed an order of the same external id since we looked, and
            # has committed: the next look finds it. What we hold we still hold.
            continue
        return _told(outcomes, ids=ids)


async def _hold(
    session: AsyncSession, orders: Sequence[NewOrder]
) -> tuple[set[int], dict[int, int], dict[int, stock.LockedProduct]]:
    wanted = {
        "users": sorted({order.user_id for order in orders}),
        "addresses": sorted({order.delivery_address_id for order in orders}),
    }
    found = (await session.execute(_HOLD, wanted)).all()
    users = {row.user_id for row in found if row.address_id is None}
    addresses = {row.address_id: row.user_id for row in found if row.address_id is not None}
    products = await stock.get_products_for_update(
        session, (item.product_id for order in orders for item in order.items)
    )
    return users, addresses, products


async def _earlier(session: AsyncSession, orders: Sequence[NewOrder]) -> dict[str, ExistingOrder]:
    wanted = [order.external_id for order in orders if order.external_id is not None]
    if not wanted:
        return {}
    found = await session.execute(_EARLIER, {"external_ids": wanted})
    return {
        row.external_id: ExistingOrder(
            order_id=row.id, total_price=row.total_price, digest=row.request_digest
        )
        for row in found
    }


async def _write(session: AsyncSession, allotted: Sequence[AcceptedOrder]) -> list[int]:
    items = [
        (position, item.product_id, item.quantity, price)
        for position, one in enumerate(allotted, start=1)
        for item, price in zip(one.order.items, one.prices, strict=True)
    ]
    positions, products, quantities, prices = zip(*items, strict=True)
    written = await session.execute(
        _WRITE,
        {
            "external_ids": [one.order.external_id for one in allotted],
            "digests": [one.digest for one in allotted],
            "users": [one.order.user_id for one in allotted],
            "addresses": [one.order.delivery_address_id for one in allotted],
            "totals": [one.total_price for one in allotted],
            "places": positions,
            "products": products,
            "quantities": quantities,
            "prices": prices,
        },
    )
    ids: list[int] = written.scalar_one()
    taken: dict[int, int] = {}
    for one in allotted:
        for product_id, wanted in one.quantities.items():
            taken[product_id] = taken.get(product_id, 0) + wanted
    await stock.deduct(session, taken)
    return ids


def _told(
    outcomes: Sequence[OrderDecision], *, ids: Sequence[int]
) -> list[PlacedOrder | DaybookError]:
    """Return the outcomes with the ids that the written orders got."""
    fresh = iter(ids)
    told: list[PlacedOrder | DaybookError] = []
    for outcome in outcomes:
        match outcome:
            case AcceptedOrder():
                told.append(PlacedOrder(next(fresh), outcome.total_price, duplicate=False))
            case ExistingOrder():
                told.append(PlacedOrder(outcome.order_id, outcome.total_price, duplicate=True))
            case DuplicateInBatch():
                first = told[outcome.of]
                assert isinstance(first, PlacedOrder)
                told.append(PlacedOrder(first.order_id, first.total_price, duplicate=True))
            case DaybookError():
                told.append(outcome)
    return told
