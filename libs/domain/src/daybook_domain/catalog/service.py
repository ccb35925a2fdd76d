"""What can be decided about users, addresses and products? Writes, in the caller's transaction."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, TypedDict, TypeVar

from sqlalchemy import delete, text, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.cache_invalidation import EntityKind, mark_changed
from daybook_domain.catalog.errors import (
    AddressNotFound,
    AlreadyTaken,
    ProductNotFound,
    StillReferenced,
    UserNotFound,
)
from daybook_domain.catalog.models import Address, Product, User
from daybook_domain.postgres_errors import violated_constraint

T = TypeVar("T", User, Address, Product)


@dataclass(frozen=True, slots=True)
class NewUser:
    """Somebody who is to be known."""

    username: str
    email: str
    description: str | None = None


class UserChanges(TypedDict, total=False):
    """What is to be different about a user; what is left out stays."""

    username: str
    email: str
    description: str | None


@dataclass(frozen=True, slots=True)
class NewAddress:
    """A place that is to be known."""

    street: str
    city: str
    zip_code: str
    country: str
    state: str | None = None
    is_primary: bool = False


class AddressChanges(TypedDict, total=False):
    """What is to be different about an address; what is left out stays."""

    street: str
    city: str
    state: str | None
    zip_code: str
    country: str
    is_primary: bool


@dataclass(frozen=True, slots=True)
class NewProduct:
    """A thing that is to be sold."""

    name: str
    description: str | None
    price: Decimal
    stock_quantity: int


class ProductChanges(TypedDict, total=False):
    """What is to be different about a product; what is left out stays."""

    name: str
    description: str | None
    price: Decimal
    stock_quantity: int


async def add_user(session: AsyncSession, new: NewUser) -> User:
    """Add a user; raises `Taken` when the name or the email is another's."""
    user = User(**asdict(new))
    await _save_user(session, user)
    return user


async def change_user(session: AsyncSession, user_id: int, *, changes: UserChanges) -> User:
    """Change a user; raises `UserNotFound` and `Taken`."""
    user = await _hold_user(session, user_id)
    _apply(user, changes)
    await _save_user(session, user)
    mark_changed(session, EntityKind.USER, user_id)
    return user


async def delete_user(session: AsyncSession, user_id: int) -> None:
    """Delete a user and the addresses; raises `UserNotFound`, and `InUse` with an order."""
    await _hold_user(session, user_id, to_delete=True)
    mark_changed(session, EntityKind.USER, user_id)
    statements = (
        delete(Address).where(col(Address.user_id) == user_id),
        delete(User).where(col(User.id) == user_id),
    )
    try:
        async with session.begin_nested():
            for statement in statements:
                await session.execute(statement)
    except IntegrityError as error:
        _require_order(error)
        raise StillReferenced(
            f"User {user_id} has orders, so the user cannot be deleted."
        ) from None


async def add_address(session: AsyncSession, user_id: int, new: NewAddress) -> Address:
    """Add an address of a user; a primary one takes that from another. Raises `UserNotFound`."""
    await _hold_user(session, user_id)
    if new.is_primary:
        await _unset_primary(session, user_id)
    address = Address(user_id=user_id, **asdict(new))
    session.add(address)
    await session.flush()
    return address


async def change_address(
    session: AsyncSession, address_id: int, *, user_id: int, changes: AddressChanges
) -> Address:
    """Change an address; becoming primary takes that from another.

    Raises `UserNotFound` and `AddressNotFound`.
    """
    await _hold_user(session, user_id)
    address = await _hold_address(session, address_id, user_id=user_id)
    if changes.get("is_primary") and not address.is_primary:
        await _unset_primary(session, user_id)
    _apply(address, changes)
    await session.flush()
    await session.refresh(address)
    return address


async def delete_address(session: AsyncSession, address_id: int, *, user_id: int) -> None:
    """Delete an address; raises `UserNotFound`, `AddressNotFound`, and `InUse` with an order."""
    await _hold_user(session, user_id)
    await _hold_address(session, address_id, user_id=user_id)
    try:
        async with session.begin_nested():
            await session.execute(delete(Address).where(col(Address.id) == address_id))
    except IntegrityError as error:
        _require_order(error)
        raise StillReferenced(
            f"Orders are delivered to address {address_id}, so it cannot be deleted."
        ) from None


# The ids come from the array in its order: a row's place in RETURNING is nowhere promised.
_ADD_PRODUCTS = text(
    """
    WITH added AS MATERIALIZED (
        SELECT nextval(pg_get_serial_sequence('products', 'id')) AS id, asked.*
        FROM unnest(
            CAST(:names AS text[]), CAST(:descriptions AS text[]), CAST(:prices AS numeric[]),
            CAST(:stock AS integer[])
        ) WITH ORDINALITY AS asked(name, description, price, stock, place)
    ), written AS (
        INSERT INTO products (id, name, description, price, stock_quantity)
        OVERRIDING SYSTEM VALUE
        SELECT id, name, description, price, stock FROM added ORDER BY place
    )
    SELECT id FROM added ORDER BY place
    """
)


async def add_products(session: AsyncSession, products: Sequence[NewProduct]) -> list[int]:
    """Add products, however many in one statement, and return their ids in the same order."""
    added = await session.execute(
        _ADD_PRODUCTS,
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

    Waits for orders that are taking of its stock: a new `stock_quantity` is what is left then.
    """
    product = await _held(session, Product, product_id)
    if product is None:
        raise ProductNotFound(f"There is no product {product_id}.")
    _apply(product, changes)
    await session.flush()
    await session.refresh(product)
    mark_changed(session, EntityKind.PRODUCT, product_id)
    return product


async def delete_product(session: AsyncSession, product_id: int) -> None:
    """Delete a product; raises `ProductNotFound`, and `InUse` when an order has it."""
    if await _held(session, Product, product_id, to_delete=True) is None:
        raise ProductNotFound(f"There is no product {product_id}.")
    mark_changed(session, EntityKind.PRODUCT, product_id)
    try:
        async with session.begin_nested():
            await session.execute(delete(Product).where(col(Product.id) == product_id))
    except IntegrityError as error:
        _require_order(error)
        raise StillReferenced(
            f"Orders contain product {product_id}, so it cannot be deleted."
            " With a stock of 0 nobody can order it any more."
        ) from None


async def _save_user(session: AsyncSession, user: User) -> None:
    try:
        async with session.begin_nested():
            session.add(user)
            await session.flush()
    except IntegrityError as error:
        match violated_constraint(error):
            case "uq_users_username":
                field = "username"
            case "uq_users_email":
                field = "email"
            case _:
                raise
        raise AlreadyTaken(f"this {field} is another user's", field=field) from None
    await session.refresh(user)


async def _unset_primary(session: AsyncSession, user_id: int) -> None:
    await session.execute(
        update(Address)
        .where(col(Address.user_id) == user_id, col(Address.is_primary))
        .values(is_primary=False)
        .execution_options(synchronize_session="fetch")
    )


async def _hold_user(session: AsyncSession, user_id: int, *, to_delete: bool = False) -> User:
    user = await _held(session, User, user_id, to_delete=to_delete)
    if user is None:
        raise UserNotFound(f"There is no user {user_id}.")
    return user


async def _hold_address(session: AsyncSession, address_id: int, *, user_id: int) -> Address:
    address = await _held(session, Address, address_id)
    if address is None or address.user_id != user_id:
        raise AddressNotFound(f"User {user_id} has no address {address_id}.")
    return address


async def _held(
    session: AsyncSession, table: type[T], key: int, *, to_delete: bool = False
) -> T | None:
    """Return the row that nobody else changes before the transaction ends.

    Unless it is `to_delete`, others may go on to refer to it.
    """
    statement = (
        select(table)
        .where(col(table.id) == key)
        .with_for_update(key_share=not to_delete)
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).one_or_none()


def _apply(row: User | Address | Product, changes: Any) -> None:
    for name, value in changes.items():
        setattr(row, name, value)


def _require_order(error: IntegrityError) -> None:
    """Let the refusal to delete what an order refers to pass, and nothing else."""
    if violated_constraint(error) not in {
        "fk_orders_user_id",
        "fk_orders_delivery_address_id",
        "fk_order_items_product_id",
    }:
        raise error
