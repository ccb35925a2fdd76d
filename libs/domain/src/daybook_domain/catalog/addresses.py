"""Creation, change and deletion of addresses, in the caller's transaction.

Every function locks the user first, so that changes of one user's addresses are serialized.
"""

from dataclasses import asdict, dataclass
from typing import TypedDict

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.catalog.errors import StillReferenced
from daybook_domain.catalog.models import Address
from daybook_domain.catalog.queries import get_address_for_update, get_user_for_update
from daybook_domain.postgres_errors import violated_constraint


@dataclass(frozen=True, slots=True)
class NewAddress:
    """The fields of an address to create."""

    street: str
    city: str
    zip_code: str
    country: str
    state: str | None = None
    is_primary: bool = False


class AddressChanges(TypedDict, total=False):
    """The new values of an address; absent keys stay unchanged."""

    street: str
    city: str
    state: str | None
    zip_code: str
    country: str
    is_primary: bool


async def add_address(session: AsyncSession, user_id: int, new: NewAddress) -> Address:
    """Create an address of a user; a primary one replaces the previous primary address.

    Raises `UserNotFound`.
    """
    await get_user_for_update(session, user_id)
    if new.is_primary:
        await _unset_primary(session, user_id)
    address = Address(user_id=user_id, **asdict(new))
    session.add(address)
    await session.flush()
    return address


async def change_address(
    session: AsyncSession, address_id: int, *, user_id: int, changes: AddressChanges
) -> Address:
    """Change an address; one that becomes primary replaces the previous primary address.

    Raises `UserNotFound` and `AddressNotFound`.
    """
    await get_user_for_update(session, user_id)
    address = await get_address_for_update(session, address_id, user_id=user_id)
    if changes.get("is_primary") and not address.is_primary:
        await _unset_primary(session, user_id)
    for name, value in changes.items():
        setattr(address, name, value)
    await session.flush()
    await session.refresh(address)
    return address


async def delete_address(session: AsyncSession, address_id: int, *, user_id: int) -> None:
    """Delete an address.

    Raises `UserNotFound`, `AddressNotFound`, and `StillReferenced` if an order refers to it.
    """
    await get_user_for_update(session, user_id)
    await get_address_for_update(session, address_id, user_id=user_id)
    try:
        async with session.begin_nested():
            await session.execute(delete(Address).where(col(Address.id) == address_id))
    except IntegrityError as error:
        if violated_constraint(error) != "fk_orders_delivery_address_id":
            raise
        raise StillReferenced(
            f"Orders are delivered to address {address_id}, so it cannot be deleted."
        ) from None


async def _unset_primary(session: AsyncSession, user_id: int) -> None:
    await session.execute(
        update(Address)
        .where(col(Address.user_id) == user_id, col(Address.is_primary))
        .values(is_primary=False)
        .execution_options(synchronize_session="fetch")
    )
