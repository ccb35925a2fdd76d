"""Placement of batches of orders: locks, inserts and stock deductions.

The number of statements does not depend on the number of orders; the REST API places a batch of
one. All referenced rows are locked until the transaction ends, in the order that catalog/stock.py
defines, so that `validate_orders` decides on data that cannot change.
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
    NewOrder,
    OrderDecision,
    ReferenceData,
    validate_orders,
)
from daybook_domain.postgres_errors import violated_constraint

# The branches of a UNION ALL are executed in sequence: users are locked before addresses.
_LOCK_USERS_AND_ADDRESSES = text(
    """
    WITH locked_users AS MATERIALIZED (
        SELECT id FROM users WHERE id = ANY(CAST(:users AS bigint[])) ORDER BY id FOR KEY SHARE
    ), locked_addresses AS MATERIALIZED (
        SELECT id, user_id FROM addresses WHERE id = ANY(CAST(:addresses AS bigint[]))
        ORDER BY id FOR KEY SHARE
    )
    SELECT NULL AS address_id, id AS user_id FROM locked_users
    UNION ALL SELECT id, user_id FROM locked_addresses
    """
)
_SELECT_BY_EXTERNAL_ID = text(
    """
    SELECT external_id, id, total_price, request_digest FROM orders
    WHERE external_id = ANY(CAST(:external_ids AS text[]))
    """
)
# Ids are assigned in the order of the batch, but rows are inserted in the order of their external
# ids: two batches that share several external ids then wait at the first shared one instead of
# deadlocking. Items find the id of their order by its position in an array: the plan of a join
# would be cached for a batch of one and reused for a batch of a thousand.
_INSERT_ORDERS = text(
    """
    WITH placed AS MATERIALIZED (
        SELECT nextval(pg_get_serial_sequence('orders', 'id')) AS id, input.*
        FROM unnest(
            CAST(:external_ids AS text[]), CAST(:digests AS text[]), CAST(:users AS bigint[]),
            CAST(:addresses AS bigint[]), CAST(:totals AS numeric[]), CAST(:statuses AS text[])
        ) WITH ORDINALITY
            AS input(external_id, digest, user_id, address_id, total, status, position)
    ), inserted AS (
        INSERT INTO orders (id, external_id, request_digest, user_id, delivery_address_id,
            total_price, status)
        OVERRIDING SYSTEM VALUE
        SELECT id, external_id, digest, user_id, address_id, total, status
        FROM placed ORDER BY external_id
    ), batch AS MATERIALIZED (
        SELECT array_agg(id ORDER BY position) AS ids FROM placed
    ), items AS (
        INSERT INTO order_items (order_id, product_id, quantity, price_at_order)
        SELECT (SELECT ids FROM batch)[item.position], item.product_id, item.quantity, item.price
        FROM unnest(
            CAST(:positions AS integer[]), CAST(:products AS bigint[]),
            CAST(:quantities AS integer[]), CAST(:prices AS numeric[])
        ) AS item(position, product_id, quantity, price)
    )
    SELECT ids FROM batch
    """
)


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """An order that exists; `duplicate` if it existed before, with the same content."""

    order_id: int
    total_price: Decimal
    duplicate: bool


async def place_orders(
    session: AsyncSession, orders: Sequence[NewOrder]
) -> list[PlacedOrder | DaybookError]:
    """Place the valid orders; return one result per order, in the order of `orders`.

    Errors are returned, not raised, so that an invalid order does not affect the others:
    `OutOfStock`, `ExternalIdTaken`, `UnknownReference`, `AddressOfAnotherUser`, `NoItems` and
    `TotalTooLarge`.
    """
    users, addresses, products = await _get_references_for_update(session, orders)
    while True:
        existing = await _list_existing(session, orders)
        decisions = validate_orders(orders, ReferenceData(users, addresses, products, existing))
        accepted = [each for each in decisions if isinstance(each, AcceptedOrder)]
        if not accepted:
            return _results(decisions, ids=[])
        may_conflict = any(each.order.external_id is not None for each in accepted)
        try:
            async with session.begin_nested() if may_conflict else nullcontext():
                ids = await _insert(session, accepted)
        except IntegrityError as error:
            if violated_constraint(error) != "uq_orders_external_id":
                raise
            # Another transaction has committed an order with the same external id since the
            # select above; the next select finds it. The row locks are still in place.
            continue
        return _results(decisions, ids=ids)


async def _get_references_for_update(
    session: AsyncSession, orders: Sequence[NewOrder]
) -> tuple[set[int], dict[int, int], dict[int, stock.LockedProduct]]:
    """Return user ids, the user id of each address, and products.

    Users and addresses are locked against deletion only (FOR KEY SHARE), products against changes.
    """
    ids = {
        "users": sorted({order.user_id for order in orders}),
        "addresses": sorted({order.delivery_address_id for order in orders}),
    }
    rows = (await session.execute(_LOCK_USERS_AND_ADDRESSES, ids)).all()
    users = {row.user_id for row in rows if row.address_id is None}
    addresses = {row.address_id: row.user_id for row in rows if row.address_id is not None}
    products = await stock.get_products_for_update(
        session, (item.product_id for order in orders for item in order.items)
    )
    return users, addresses, products


async def _list_existing(
    session: AsyncSession, orders: Sequence[NewOrder]
) -> dict[str, ExistingOrder]:
    external_ids = [order.external_id for order in orders if order.external_id is not None]
    if not external_ids:
        return {}
    rows = await session.execute(_SELECT_BY_EXTERNAL_ID, {"external_ids": external_ids})
    return {
        row.external_id: ExistingOrder(
            order_id=row.id, total_price=row.total_price, digest=row.request_digest
        )
        for row in rows
    }


async def _insert(session: AsyncSession, accepted: Sequence[AcceptedOrder]) -> list[int]:
    items = [
        (position, item.product_id, item.quantity, price)
        for position, each in enumerate(accepted, start=1)
        for item, price in zip(each.order.items, each.prices, strict=True)
    ]
    positions, products, quantities, prices = zip(*items, strict=True)
    inserted = await session.execute(
        _INSERT_ORDERS,
        {
            "external_ids": [each.order.external_id for each in accepted],
            "digests": [each.digest for each in accepted],
            "users": [each.order.user_id for each in accepted],
            "addresses": [each.order.delivery_address_id for each in accepted],
            "totals": [each.total_price for each in accepted],
            "statuses": [each.order.status for each in accepted],
            "positions": positions,
            "products": products,
            "quantities": quantities,
            "prices": prices,
        },
    )
    ids: list[int] = inserted.scalar_one()
    sold: dict[int, int] = {}
    for each in accepted:
        for product_id, quantity in each.quantities.items():
            sold[product_id] = sold.get(product_id, 0) + quantity
    await stock.deduct(session, sold)
    return ids


def _results(
    decisions: Sequence[OrderDecision], *, ids: Sequence[int]
) -> list[PlacedOrder | DaybookError]:
    """Return one result per decision; `ids` are those of the accepted orders, in their order."""
    new_ids = iter(ids)
    results: list[PlacedOrder | DaybookError] = []
    for decision in decisions:
        match decision:
            case AcceptedOrder():
                results.append(PlacedOrder(next(new_ids), decision.total_price, duplicate=False))
            case ExistingOrder():
                results.append(PlacedOrder(decision.order_id, decision.total_price, duplicate=True))
            case DuplicateInBatch():
                first = results[decision.of]
                assert isinstance(first, PlacedOrder)
                results.append(PlacedOrder(first.order_id, first.total_price, duplicate=True))
            case DaybookError():
                results.append(decision)
    return results
