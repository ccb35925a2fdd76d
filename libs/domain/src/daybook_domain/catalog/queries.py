"""What can be asked about users, addresses and products? Reads; decides nothing."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.catalog.errors import AddressNotFound, ProductNotFound, UserNotFound
from daybook_domain.catalog.models import Address, Product, User

T = TypeVar("T", User, Address, Product)


async def get_user(session: AsyncSession, user_id: int) -> User:
    """Return a user, or raise `UserNotFound`."""
    user = await session.get(User, user_id)
    if user is None:
        raise UserNotFound(f"There is no user {user_id}.")
    return user


async def get_address(session: AsyncSession, address_id: int, *, user_id: int) -> Address:
    """Return an address of a user, or raise `AddressNotFound`."""
    address = await session.get(Address, address_id)
    if address is None or address.user_id != user_id:
        raise AddressNotFound(f"User {user_id} has no address {address_id}.")
    return address


async def get_product(session: AsyncSession, product_id: int) -> Product:
    """Return a product, or raise `ProductNotFound`."""
    product = await session.get(Product, product_id)
    if product is None:
        raise ProductNotFound(f"There is no product {product_id}.")
    return product


async def list_users(
    session: AsyncSession, *, limit: int, offset: int
) -> tuple[Sequence[User], int]:
    """Return users, newest first, and how many there are in all."""
    return await _page(session, User, limit=limit, offset=offset)


async def list_addresses(
    session: AsyncSession, *, user_id: int, limit: int, offset: int
) -> tuple[Sequence[Address], int]:
    """Return addresses of a user, newest first, and how many the user has; or `UserNotFound`."""
    await get_user(session, user_id)
    return await _page(
        session, Address, col(Address.user_id) == user_id, limit=limit, offset=offset
    )


async def list_products(
    session: AsyncSession,
    *,
    name: str | None = None,
    min_price: Decimal | None = None,
    max_price: Decimal | None = None,
    limit: int,
    offset: int,
) -> tuple[Sequence[Product], int]:
    """Return products, newest first, and how many there are of them.

    `name`: a part of it, in upper or lower case. All names are read for that, 100,000 in about a
    tenth of a second: the trigrams that could serve it are not to be had on every Postgres.
    """
    wanted = []
    if name is not None:
        wanted.append(col(Product.name).icontains(name, autoescape=True))
    if min_price is not None:
        wanted.append(col(Product.price) >= min_price)
    if max_price is not None:
        wanted.append(col(Product.price) <= max_price)
    return await _page(session, Product, *wanted, limit=limit, offset=offset)


async def _page(
    session: AsyncSession, table: type[T], *wanted: ColumnElement[bool], limit: int, offset: int
) -> tuple[Sequence[T], int]:
    rows = (
        select(table)
        .where(*wanted)
        # Rows of one transaction have one `created_at`.
        .order_by(col(table.created_at).desc(), col(table.id).desc())
        .limit(limit)
        .offset(offset)
    )
    count: Any = select(func.count()).select_from(table).where(*wanted)
    return (await session.exec(rows)).all(), (await session.exec(count)).one()
