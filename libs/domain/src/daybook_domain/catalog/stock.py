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

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.changes import Kind, note

# NO KEY UPDATE lets others insert items that refer to the product, which needs but its key.
_HOLD = text(
    """
    SELECT id, price, stock_quantity FROM products
    WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE
    """
)
_MOVE = text(
    """
    UPDATE products AS p SET stock_quantity = p.stock_quantity - taken.pieces, updated_at = now()
    FROM unnest(CAST(:ids AS bigint[]), CAST(:pieces AS bigint[])) AS taken(id, pieces)
    WHERE p.id = taken.id AND p.stock_quantity >= taken.pieces
    RETURNING p.id
    """
)


@dataclass(frozen=True, slots=True)
class Held:
    """What a product costs, and how many pieces are left, until the caller's transaction ends."""

    price: Decimal
    left: int


async def hold(session: AsyncSession, product_ids: Iterable[int]) -> dict[int, Held]:
    """Return the products that exist; nobody else changes them before the transaction ends."""
    found = await session.execute(_HOLD, {"ids": sorted(set(product_ids))})
    return {row.id: Held(price=row.price, left=row.stock_quantity) for row in found}


async def take(session: AsyncSession, pieces: Mapping[int, int]) -> None:
    """Take so many pieces of each product; a negative number gives them back.

    The products are held, and enough of them is left: the caller has looked.
    """
    moved = {product: count for product, count in pieces.items() if count}
    if not moved:
        return
    note(session, Kind.PRODUCT, *moved)
    values = {"ids": list(moved), "pieces": list(moved.values())}
    touched = (await session.execute(_MOVE, values)).all()
    if len(touched) != len(moved):
        raise AssertionError(f"stock of {sorted(moved)} was moved without being held")
