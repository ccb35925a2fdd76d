"""Locks on products, and changes of their stock.

All writers take their locks in one order, so that they cannot deadlock:

1. a user, then that user's addresses (FOR KEY SHARE, against their deletion)
2. the row of an existing order
3. the dates of the reports that may contain it (advisory, shared; see runs/order_rebuilds.py)
4. products, in one statement, by id: `get_products_for_update`
5. the waiting run of such a date, if a rebuild is requested
6. writes of stock and orders; they wait only for a transaction that inserts an order with the same
   external id, and such a transaction already has all of the locks above

A transaction with several operations, such as a batch of messages, follows the same order: it
first locks all of their orders, then all of their products. It only tries the locks of dates, since
a build may hold one for minutes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from sqlalchemy import CursorResult, text
from sqlmodel.ext.asyncio.session import AsyncSession

# NO KEY UPDATE, because others may still insert items that refer to the product.
#
# Sequential scans are disabled for the rest of the transaction: each connection caches the plans of
# the foreign key checks, and a plan made while a table is nearly empty scans it for every row until
# the next ANALYZE. A batch of a thousand orders in a new shop took ten times as long with them.
_LOCK_PRODUCTS = text(
    """
    SELECT p.id, p.price, p.stock_quantity
    FROM products AS p, set_config('enable_seqscan', 'off', true)
    WHERE p.id = ANY(CAST(:ids AS bigint[])) ORDER BY p.id FOR NO KEY UPDATE OF p
    """
)
_DEDUCT_STOCK = text(
    """
    UPDATE products AS p
    SET stock_quantity = p.stock_quantity - deducted.quantity, updated_at = now()
    FROM unnest(CAST(:ids AS bigint[]), CAST(:quantities AS bigint[])) AS deducted(id, quantity)
    WHERE p.id = deducted.id AND p.stock_quantity >= deducted.quantity
    """
)


@dataclass(frozen=True, slots=True)
class LockedProduct:
    """Price and stock of a product that is locked until the transaction ends."""

    price: Decimal
    stock: int


async def get_products_for_update(
    session: AsyncSession, product_ids: Iterable[int]
) -> dict[int, LockedProduct]:
    """Lock products and return those that exist, by id.

    Disables sequential scans for the rest of the transaction.
    """
    rows = (await session.execute(_LOCK_PRODUCTS, {"ids": sorted(set(product_ids))})).all()
    return {row.id: LockedProduct(price=row.price, stock=row.stock_quantity) for row in rows}


async def deduct(session: AsyncSession, quantities: Mapping[int, int]) -> None:
    """Deduct a quantity of each product from its stock; a negative quantity adds to it.

    The caller has locked the products and checked that their stock suffices.
    """
    changed = {product: quantity for product, quantity in quantities.items() if quantity}
    if not changed:
        return
    values = {"ids": list(changed), "quantities": list(changed.values())}
    updated = cast("CursorResult[Any]", await session.execute(_DEDUCT_STOCK, values)).rowcount
    if updated != len(changed):
        raise AssertionError(f"products {sorted(changed)} are not locked or out of stock")
