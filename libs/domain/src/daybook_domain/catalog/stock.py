"""How is stock moved without losing a piece, or meeting a deadlock?

Everything that writes takes its locks in one order, so that no two can wait for each other:

1. a user, then that user's addresses (against their deletion: FOR KEY SHARE)
2. the row of an order that exists
3. the dates of the reports that may count it (advisory, shared; see reports/counted.py)
4. products, all at once, by id: `hold`
5. the writing, of stock and of orders; it waits only for a transaction that writes an order of
   the same external id, and such a transaction holds all of the above already

A transaction that does several things, as a batch of messages does, keeps to it by taking the
locks of all of them first: those of the orders, then those of the products.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from sqlalchemy import CursorResult, text
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.cache_invalidation import EntityKind, mark_changed

# NO KEY UPDATE lets others insert items that refer to the product, which needs but its key.
#
# Writing that follows checks foreign keys, by plans that a connection makes once and keeps: made
# while a table is nearly empty they read it from end to end, for each row, until the table is
# analysed. Seen to take ten times as long for a batch of a thousand orders in a new shop.
_HOLD = text(
    """
    SELECT p.id, p.price, p.stock_quantity
    FROM products AS p, set_config('enable_seqscan', 'off', true)
    WHERE p.id = ANY(CAST(:ids AS bigint[])) ORDER BY p.id FOR NO KEY UPDATE OF p
    """
)
_MOVE = text(
    """
    UPDATE products AS p SET stock_quantity = p.stock_quantity - taken.pieces, updated_at = now()
    FROM unnest(CAST(:ids AS bigint[]), CAST(:pieces AS bigint[])) AS taken(id, pieces)
    WHERE p.id = taken.id AND p.stock_quantity >= taken.pieces
    """
)


@dataclass(frozen=True, slots=True)
class LockedProduct:
    """What a product costs, and how many pieces are left, until the caller's transaction ends."""

    price: Decimal
    left: int


async def get_products_for_update(
    session: AsyncSession, product_ids: Iterable[int]
) -> dict[int, LockedProduct]:
    """Return the products that exist; nobody else changes them before the transaction ends.

    The rest of the transaction is planned without reading tables from end to end.
    """
    found = (await session.execute(_HOLD, {"ids": sorted(set(product_ids))})).all()
    return {row.id: LockedProduct(price=row.price, left=row.stock_quantity) for row in found}


async def deduct(session: AsyncSession, pieces: Mapping[int, int]) -> None:
    """Take so many pieces of each product; a negative number gives them back.

    The products are held, and enough of them is left: the caller has looked.
    """
    moved = {product: count for product, count in pieces.items() if count}
    if not moved:
        return
    mark_changed(session, EntityKind.PRODUCT, *moved)
    values = {"ids": list(moved), "pieces": list(moved.values())}
    touched = cast("CursorResult[Any]", await session.execute(_MOVE, values)).rowcount
    if touched != len(moved):
        raise AssertionError(f"stock of {sorted(moved)} was moved without being held")
