"""Filters and pages of products."""

from decimal import Decimal

import pytest

from daybook_domain.catalog import products, queries
from daybook_domain.catalog.products import NewProduct
from daybook_platform.postgres.sessions import Sessions


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
async def test_products_are_found_by_a_substring_of_the_name(
    sessions: Sessions, name: str, found: list[int]
) -> None:
    names = ["cup", "pot", "tea, 5 % off", "black_tea", "Öl"]
    async with sessions.begin() as session:
        await products.add_products(
            session, [NewProduct(one, None, Decimal("1.00"), 1) for one in names]
        )
    async with sessions() as session:
        page, total = await queries.list_products(session, name=name, limit=10, offset=0)
    assert ([product.id for product in page], total) == (found, len(found))


async def test_products_are_found_by_price(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await products.add_products(
            session, [NewProduct("pot", None, Decimal(n), 1) for n in range(1, 9)]
        )
    async with sessions() as session:
        page, total = await queries.list_products(
            session, min_price=Decimal("3.50"), max_price=Decimal(5), limit=2, offset=0
        )
    assert ([product.price for product in page], total) == ([Decimal(5), Decimal(4)], 3)


async def test_pages_do_not_repeat_rows(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await products.add_products(
            session, [NewProduct("pot", None, Decimal(1), 1) for _ in range(25)]
        )
    seen: list[int | None] = []
    async with sessions() as session:
        for offset in range(0, 30, 7):
            page, total = await queries.list_products(session, limit=7, offset=offset)
            seen += [product.id for product in page]
            assert total == 26
    assert seen == list(range(26, 0, -1))
