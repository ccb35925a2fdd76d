"""Creation, change and deletion of users, in the caller's transaction."""

from dataclasses import asdict, dataclass
from typing import TypedDict

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.catalog.errors import AlreadyTaken, StillReferenced
from daybook_domain.catalog.models import Address, User
from daybook_domain.catalog.queries import get_user_for_delete, get_user_for_update
from daybook_domain.postgres_errors import violated_constraint

_FIELD_BY_CONSTRAINT = {"uq_users_username": "username", "uq_users_email": "email"}


@dataclass(frozen=True, slots=True)
class NewUser:
    """The fields of a user to create."""

    username: str
    email: str
    description: str | None = None


class UserChanges(TypedDict, total=False):
    """The new values of a user; absent keys stay unchanged."""

    username: str
    email: str
    description: str | None


async def add_user(session: AsyncSession, new: NewUser) -> User:
    """Create a user.

    Raises `AlreadyTaken` if another user has the username or the email.
    """
    user = User(**asdict(new))
    await _save(session, user)
    return user


async def change_user(session: AsyncSession, user_id: int, *, changes: UserChanges) -> User:
    """Change a user.

    Raises `UserNotFound`, and `AlreadyTaken` if another user has the username or the email.
    """
    user = await get_user_for_update(session, user_id)
    for name, value in changes.items():
        setattr(user, name, value)
    await _save(session, user)
    return user


async def delete_user(session: AsyncSession, user_id: int) -> None:
    """Delete a user and the user's addresses.

    Raises `UserNotFound`, and `StillReferenced` if the user has orders.
    """
    await get_user_for_delete(session, user_id)
    statements = (
        delete(Address).where(col(Address.user_id) == user_id),
        delete(User).where(col(User.id) == user_id),
    )
    try:
        async with session.begin_nested():
            for statement in statements:
                await session.execute(statement)
    except IntegrityError as error:
        if violated_constraint(error) not in {"fk_orders_user_id", "fk_orders_delivery_address_id"}:
            raise
        raise StillReferenced(
            f"User {user_id} has orders, so the user cannot be deleted."
        ) from None


async def _save(session: AsyncSession, user: User) -> None:
    try:
        async with session.begin_nested():
            session.add(user)
            await session.flush()
    except IntegrityError as error:
        field = _FIELD_BY_CONSTRAINT.get(violated_constraint(error) or "")
        if field is None:
            raise
        raise AlreadyTaken(f"another user has this {field}", field=field) from None
    await session.refresh(user)
