"""Creation, change and deletion of addresses."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.catalog import addresses, queries, users
from daybook_domain.catalog.addresses import NewAddress
from daybook_domain.catalog.errors import AddressNotFound, StillReferenced, UserNotFound
from daybook_domain.catalog.users import NewUser
from daybook_platform.postgres.sessions import Sessions
from tests.integration.domain.catalog.conftest import OrderTea

SECONDARY = NewAddress(street="Quay 2", city="Bergen", zip_code="5003", country="NO")
PRIMARY = NewAddress(street="Quay 3", city="Bergen", zip_code="5003", country="NO", is_primary=True)


async def primary_address_ids(engine: AsyncEngine) -> list[int]:
    async with engine.connect() as connection:
        found = await connection.scalars(text("SELECT id FROM addresses WHERE is_primary"))
        return list(found)


async def test_a_new_primary_address_replaces_the_previous_one(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    async with sessions.begin() as session:
        second = await addresses.add_address(session, 1, PRIMARY)
        third = await addresses.add_address(session, 1, SECONDARY)
    assert await primary_address_ids(engine) == [second.id]
    async with sessions.begin() as session:
        await addresses.change_address(
            session, third.id or 0, user_id=1, changes={"is_primary": True}
        )
    assert await primary_address_ids(engine) == [third.id]
    async with sessions.begin() as session:
        await addresses.change_address(
            session, third.id or 0, user_id=1, changes={"is_primary": False}
        )
    assert await primary_address_ids(engine) == []


async def test_concurrent_primary_addresses_leave_one(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    async def add() -> None:
        async with sessions.begin() as session:
            await addresses.add_address(session, 1, PRIMARY)

    await asyncio.gather(*(add() for _ in range(8)))
    assert len(await primary_address_ids(engine)) == 1


async def test_an_address_is_found_only_with_its_user(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        bob = await users.add_user(session, NewUser("bob", "bob@example.com"))
        assert bob.id is not None
        with pytest.raises(AddressNotFound):
            await addresses.change_address(session, 1, user_id=bob.id, changes={"city": "Oslo"})
        with pytest.raises(AddressNotFound):
            await addresses.delete_address(session, 1, user_id=bob.id)
        with pytest.raises(AddressNotFound):
            await queries.get_address(session, 1, user_id=bob.id)
        with pytest.raises(UserNotFound):
            await addresses.add_address(session, 99, SECONDARY)


async def test_an_address_with_orders_cannot_be_deleted(
    sessions: Sessions, order_tea: OrderTea
) -> None:
    await order_tea()
    async with sessions.begin() as session:
        with pytest.raises(StillReferenced, match="Orders are delivered to"):
            await addresses.delete_address(session, 1, user_id=1)
    async with sessions() as session:
        await queries.get_address(session, 1, user_id=1)
