"""Creation, change and deletion of products, in the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypedDict

from sqlalchemy import delete, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.catalog.errors import StillReferenced
from daybook_domain.catalog.models import Product
from daybook_domain.catalog.queries import get_product_for_delete, get_product_for_update
from daybook_domain.postgres_errors import violated_constraint

# The ids are assigned in the order of the input arrays and read back by position: SQL does not
# guarantee the order of rows in RETURNING.
_INSERT_PRODUCTS = text(
    """
    WITH added AS MATERIALIZED (
        SELECT nextval(pg_get_serial_sequence('products', 'id')) AS id, input.*
        FROM unnest(
            CAST(:names AS text[]), CAST(:descriptions AS text[]), CAST(:prices AS numeric[]),
            CAST(:stock AS integer[])
        ) WITH ORDINALITY AS input(name, description, price, stock, position)
    ), inserted AS (
        INSERT INTO products (id, name, description, price, stock_quantity)
        OVERRIDING SYSTEM VALUE
        SELECT id, name, description, price, stock FROM added ORDER BY position
    )
    SELECT id FROM added ORDER BY position
    """
)


@dataclass(frozen=True, slots=True)
class NewProduct:
    """The fields of a product to create."""

    name: str
    description: str | None
    price: Decimal
    stock_quantity: int


class ProductChanges(TypedDict, total=False):
    """The new values of a product; absent keys stay unchanged."""

    name: str
    description: str | None
    price: Decimal
    stock_quantity: int


async def add_products(session: AsyncSession, products: Sequence[NewProduct]) -> list[int]:
    """Create products with one statement; return their ids in the order of `products`."""
    added = await session.execute(
        _INSERT_PRODUCTS,
        {
            "names": [product.name for product in products],
            "descriptions": [product.description for product in products],
            "prices": [product.price for product in products],
            "stock": [product.stock_quantity for product in products],
        },
    )
    return list(added.scalars())


async def change_product(
    session: AsyncSession, product_id: int, *, changes: ProductChanges
) -> Product:
    """Change a product; raises `ProductNotFound`.

    Waits for concurrent orders of the product: a new `stock_quantity` replaces the stock that
    these orders leave.
    """
    product = await get_product_for_update(session, product_id)
    for name, value in changes.items():
        setattr(product, name, value)
    await session.flush()
    await session.refresh(product)
    return product


async def delete_product(session: AsyncSession, product_id: int) -> None:
    """Delete a product.

    Raises `ProductNotFound`, and `StillReferenced` if an order contains it.
    """
    await get_product_for_delete(session, product_id)
    try:
        async with session.begin_nested():
            await session.execute(delete(Product).where(col(Product.id) == product_id))
    except IntegrityError as error:
        if violated_constraint(error) != "fk_order_items_product_id":
            raise
        raise StillReferenced(
            f"Orders contain product {product_id}, so it cannot be deleted."
            " Set its stock_quantity to 0 to prevent further orders."
        ) from None
