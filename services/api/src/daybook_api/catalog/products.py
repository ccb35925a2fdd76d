"""/products: what can be ordered."""

from datetime import datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Annotated, cast

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from daybook_api.catalog.copies import show
from daybook_api.deps import App
from daybook_api.idempotency import CREATED, Idempotent
from daybook_api.lists import PageQuery, PathId
from daybook_api.money import Money
from daybook_domain.catalog import queries, service
from daybook_domain.catalog.fields import (
    LARGEST_AMOUNT,
    Price,
    ProductDescription,
    ProductName,
    Stock,
)
from daybook_domain.catalog.service import NewProduct, ProductChanges
from daybook_domain.changes import Kind, Thing
from daybook_domain.errors import Invalid
from daybook_domain.fields import Storable, left_out

router = APIRouter(prefix="/products", tags=["products"])


class ProductIn(BaseModel):
    """A product to add."""

    model_config = ConfigDict(extra="forbid")

    name: ProductName
    description: ProductDescription | None = None
    price: Price
    stock_quantity: Stock = 0


class ProductPatch(BaseModel):
    """What is to be different about a product; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    name: ProductName = left_out()
    description: ProductDescription | None = None
    price: Price = left_out()
    stock_quantity: Stock = left_out()


class ProductOut(BaseModel):
    """A thing that can be ordered."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    description: str | None
    price: Money
    stock_quantity: int = Field(description="How many pieces are left.")
    created_at: datetime
    updated_at: datetime


class Products(BaseModel):
    """A page of products, newest first."""

    products: list[ProductOut]
    total: int


PriceBound = Annotated[Decimal, Field(ge=0, le=LARGEST_AMOUNT)]


class ProductsQuery(PageQuery):
    """Which products to list."""

    name: Annotated[
        str | None,
        StringConstraints(max_length=200),
        Storable,
        Field(description="A part of the name, in upper or lower case."),
    ] = None
    min_price: PriceBound | None = None
    max_price: PriceBound | None = None


@router.get("")
async def list_products(query: Annotated[ProductsQuery, Query()], app: App) -> Products:
    """List products, newest first."""
    lowest, highest = query.min_price, query.max_price
    if lowest is not None and highest is not None and lowest > highest:
        raise Invalid(
            f"the range is turned round: `min_price` ({lowest}) is above `max_price` ({highest}).",
            field="min_price",
        )
    async with app.sessions() as session:
        found, total = await queries.products(
            session,
            name=query.name,
            min_price=lowest,
            max_price=highest,
            limit=query.count,
            offset=query.offset,
        )
    return Products(products=[ProductOut.model_validate(one) for one in found], total=total)


@router.post(
    "", status_code=HTTPStatus.CREATED, response_model=ProductOut, responses={201: CREATED}
)
async def add_product(body: ProductIn, app: App, once: Idempotent) -> Response:
    """Add a product."""
    async with app.sessions.begin() as session:
        if (known := await once.replay(session, body)) is not None:
            return known
        (product_id,) = await service.add_products(session, [NewProduct(**body.model_dump())])
        product = await queries.get_product(session, product_id)
        return await once.keep(
            session, ProductOut.model_validate(product), location=f"/products/{product_id}"
        )


@router.get("/{product_id}", response_model=ProductOut)
async def get_product(product_id: PathId, app: App) -> Response:
    """Show a product."""

    async def fetch() -> ProductOut:
        async with app.sessions() as session:
            return ProductOut.model_validate(await queries.get_product(session, product_id))

    return await show(app, Thing(Kind.PRODUCT, product_id), fetch, model=ProductOut)


@router.put("/{product_id}")
async def change_product(product_id: PathId, body: ProductPatch, app: App) -> ProductOut:
    """Change what the body names; `stock_quantity` is what is left from then on."""
    changes = cast("ProductChanges", body.model_dump(exclude_unset=True))
    async with app.sessions.begin() as session:
        return ProductOut.model_validate(
            await service.change_product(session, product_id, changes=changes)
        )


@router.delete("/{product_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_product(product_id: PathId, app: App) -> None:
    """Delete a product that no order contains."""
    async with app.sessions.begin() as session:
        await service.delete_product(session, product_id)
