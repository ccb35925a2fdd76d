"""Users, addresses and products: what is refused, and what several at once may do."""

import asyncio
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.catalog import queries, service
from daybook_domain.catalog.errors import (
    AddressNotFound,
    AlreadyTaken,
    ProductNotFound,
    StillReferenced,
    UserNotFound,
)
from daybook_domain.catalog.service import NewAddress, NewProduct, NewUser, UserChanges
from daybook_domain.orders.order_placement import place_orders
from daybook_domain.orders.order_validation import NewItem, NewOrder
from daybook_platform.postgres.engine import Sessions
from tests.support.locks import somebody_waits
from tests.support.shop import open_shop, stock_left

QUAY = NewAddress(street="Quay 2", city="Bergen", zip_code="5003", country="NO")
PRIMARY = NewAddress(street="Quay 3", city="Bergen", zip_code="5003", country="NO", is_primary=True)


@pytest.fixture(autouse=True)
async def shop(engine: AsyncEngine) -> None:
    """Begin with ada, her primary address and a thousand teas at 3.50, each with id 1."""
    await open_shop(engine)


async def order_tea(sessions: Sessions, quantity: int = 1) -> None:
    async with sessions.begin() as session:
        await place_orders(session, [NewOrder(1, 1, (NewItem(1, quantity),))])


async def primaries(engine: AsyncEngine) -> list[int]:
    async with engine.connect() as connection:
        found = await connection.scalars(text("SELECT id FROM addresses WHERE is_primary"))
        return list(found)


async def test_products_get_ids_in_the_order_in_which_they_were_given(sessions: Sessions) -> None:
    new = [NewProduct(f"pot {n}", None, Decimal("9.90"), n) for n in range(200)]
    async with sessions.begin() as session:
        ids = await service.add_products(session, new)
        stored = [await queries.get_product(session, product_id) for product_id in ids]

    assert [(one.name, one.price, one.stock_quantity) for one in stored] == [
        (one.name, one.price, one.stock_quantity) for one in new
    ]


@pytest.mark.parametrize(
    ("new", "field"),
    [
        (NewUser("ada", "new@example.com"), "username"),
        (NewUser("new", "ada@example.com"), "email"),
    ],
)
async def test_a_name_or_email_that_is_taken_is_refused_by_name(
    sessions: Sessions, new: NewUser, field: str
) -> None:
    async with sessions.begin() as session:
        with pytest.raises(AlreadyTaken) as refusal:
            await service.add_user(session, new)
        # The transaction can go on: a batch does.
        bob = await service.add_user(session, NewUser("bob", "bob@example.com"))
    assert refusal.value.field == field

    changes: UserChanges = {"username": new.username, "email": new.email}
    async with sessions.begin() as session:
        with pytest.raises(AlreadyTaken):
            await service.change_user(session, bob.id or 0, changes=changes)


async def test_a_user_may_keep_name_and_email(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        user = await service.change_user(
            session, 1, changes={"username": "ada", "email": "ada@example.com"}
        )
    assert user.description is None


async def test_one_of_many_gets_a_name(sessions: Sessions) -> None:
    async def add(number: int) -> None:
        async with sessions.begin() as session:
            await service.add_user(session, NewUser("bob", f"bob{number}@example.com"))

    outcomes = await asyncio.gather(*(add(n) for n in range(8)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, AlreadyTaken) for outcome in outcomes) == 7


async def test_what_orders_refer_to_stays(sessions: Sessions) -> None:
    await order_tea(sessions)
    async with sessions.begin() as session:
        with pytest.raises(StillReferenced, match="has orders"):
            await service.delete_user(session, 1)
        with pytest.raises(StillReferenced, match="Orders are delivered to"):
            await service.delete_address(session, 1, user_id=1)
        with pytest.raises(StillReferenced, match="Orders contain product 1"):
            await service.delete_product(session, 1)
    async with sessions() as session:
        await queries.get_address(session, 1, user_id=1)


async def test_a_user_without_orders_goes_with_the_addresses(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await service.delete_product(session, 1)
        await service.delete_user(session, 1)
    async with sessions() as session:
        with pytest.raises(UserNotFound):
            await queries.list_addresses(session, user_id=1, limit=10, offset=0)
        with pytest.raises(ProductNotFound):
            await queries.get_product(session, 1)


async def test_a_primary_address_takes_that_from_the_other(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    async with sessions.begin() as session:
        second = await service.add_address(session, 1, PRIMARY)
        third = await service.add_address(session, 1, QUAY)
    assert await primaries(engine) == [second.id]
    async with sessions.begin() as session:
        await service.change_address(
            session, third.id or 0, user_id=1, changes={"is_primary": True}
        )
    assert await primaries(engine) == [third.id]
    async with sessions.begin() as session:
        await service.change_address(
            session, third.id or 0, user_id=1, changes={"is_primary": False}
        )
    assert await primaries(engine) == []


async def test_many_primary_addresses_at_once_leave_one(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    async def add() -> None:
        async with sessions.begin() as session:
            await service.add_address(session, 1, PRIMARY)

    await asyncio.gather(*(add() for _ in range(8)))
    assert len(await primaries(engine)) == 1


async def test_an_address_is_found_only_with_its_user(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        bob = await service.add_user(session, NewUser("bob", "bob@example.com"))
        assert bob.id is not None
        with pytest.raises(AddressNotFound):
            await service.change_address(session, 1, user_id=bob.id, changes={"city": "Oslo"})
        with pytest.raises(AddressNotFound):
            await service.delete_address(session, 1, user_id=bob.id)
        with pytest.raises(AddressNotFound):
            await queries.get_address(session, 1, user_id=bob.id)
        with pytest.raises(UserNotFound):
            await service.add_address(session, 99, QUAY)


async def test_a_new_stock_waits_for_the_order_that_takes_of_it_and_is_what_is_left_then(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    async def restock() -> None:
        async with sessions.begin() as session:
            await service.change_product(session, 1, changes={"stock_quantity": 50})

    async with sessions.begin() as session:
        await place_orders(session, [NewOrder(1, 1, (NewItem(1, 5),))])
        restocking = asyncio.create_task(restock())
        await somebody_waits(engine)
    await restocking

    assert await stock_left(engine) == 50


async def test_another_name_for_a_product_loses_no_sale(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    async with sessions.begin() as session:
        product = await queries.get_product(session, 1)
        # Read before the sale, written after: only what is to change may be written.
        await order_tea(sessions, 5)
        product = await service.change_product(session, 1, changes={"name": "green tea"})
    assert (product.name, product.stock_quantity) == ("green tea", 995)
    assert await stock_left(engine) == 995


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("TEA", [5, 4, 1]),
        ("%", [4]),
        ("_", [5]),
        ("tea\\", []),
        ("", [6, 5, 4, 3, 2, 1]),
        ("ÖL", [6]),
        ("/", []),
    ],
)
async def test_products_are_found_by_a_part_of_their_name(
    sessions: Sessions, name: str, found: list[int]
) -> None:
    names = ["cup", "pot", "tea, 5 % off", "black_tea", "Öl"]
    async with sessions.begin() as session:
        await service.add_products(
            session, [NewProduct(one, None, Decimal("1.00"), 1) for one in names]
        )
    async with sessions() as session:
        page, total = await queries.list_products(session, name=name, limit=10, offset=0)
    assert ([product.id for product in page], total) == (found, len(found))


async def test_products_are_found_by_price(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await service.add_products(
            session, [NewProduct("pot", None, Decimal(n), 1) for n in range(1, 9)]
        )
    async with sessions() as session:
        page, total = await queries.list_products(
            session, min_price=Decimal("3.50"), max_price=Decimal(5), limit=2, offset=0
        )
    assert ([product.price for product in page], total) == ([Decimal(5), Decimal(4)], 3)


async def test_pages_repeat_no_row(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await service.add_products(
            session, [NewProduct("pot", None, Decimal(1), 1) for _ in range(25)]
        )
    seen: list[int | None] = []
    async with sessions() as session:
        for offset in range(0, 30, 7):
            page, total = await queries.list_products(session, limit=7, offset=offset)
            seen += [product.id for product in page]
            assert total == 26
    assert seen == list(range(26, 0, -1))
