"""Creation, change and deletion of users."""

import asyncio

import pytest

from daybook_domain.catalog import products, queries, users
from daybook_domain.catalog.errors import (
    AlreadyTaken,
    ProductNotFound,
    StillReferenced,
    UserNotFound,
)
from daybook_domain.catalog.users import NewUser, UserChanges
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.catalog.conftest import OrderTea


@pytest.mark.parametrize(
    ("new", "field"),
    [
        (NewUser("ada", "new@example.com"), "username"),
        (NewUser("new", "ada@example.com"), "email"),
    ],
)
async def test_a_taken_username_or_email_is_rejected_with_its_field(
    sessions: Sessions, new: NewUser, field: str
) -> None:
    async with sessions.begin() as session:
        with pytest.raises(AlreadyTaken) as raised:
            await users.add_user(session, new)
        # The transaction is still usable.
        bob = await users.add_user(session, NewUser("bob", "bob@example.com"))
    assert raised.value.field == field

    changes: UserChanges = {"username": new.username, "email": new.email}
    async with sessions.begin() as session:
        with pytest.raises(AlreadyTaken):
            await users.change_user(session, bob.id or 0, changes=changes)


async def test_a_user_can_be_changed_to_the_same_username_and_email(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        user = await users.change_user(
            session, 1, changes={"username": "ada", "email": "ada@example.com"}
        )
    assert user.description is None


async def test_one_of_many_concurrent_users_gets_a_username(sessions: Sessions) -> None:
    async def add(number: int) -> None:
        async with sessions.begin() as session:
            await users.add_user(session, NewUser("bob", f"bob{number}@example.com"))

    results = await asyncio.gather(*(add(n) for n in range(8)), return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, AlreadyTaken) for result in results) == 7


async def test_a_user_with_orders_cannot_be_deleted(
    sessions: Sessions, order_tea: OrderTea
) -> None:
    await order_tea()
    async with sessions.begin() as session:
        with pytest.raises(StillReferenced, match="has orders"):
            await users.delete_user(session, 1)
    async with sessions() as session:
        await queries.get_address(session, 1, user_id=1)


async def test_a_user_without_orders_is_deleted_with_the_addresses(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await products.delete_product(session, 1)
        await users.delete_user(session, 1)
    async with sessions() as session:
        with pytest.raises(UserNotFound):
            await queries.list_addresses(session, user_id=1, limit=10, offset=0)
        with pytest.raises(ProductNotFound):
            await queries.get_product(session, 1)
