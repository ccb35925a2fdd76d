"""/products: what can be ordered."""

from http import HTTPStatus
from typing import Annotated, cast

from fastapi import APIRouter, Query, Response

from daybook_api.cached_response import cached_response
from daybook_api.dependencies import App
from daybook_api.idempotency import CREATED, Idempotent
from daybook_api.pagination import PathId
from daybook_api.products.schemas import (
    ProductIn,
    ProductOut,
    ProductPatch,
    Products,
    ProductsQuery,
)
from daybook_domain.cache_invalidation import EntityKey, EntityKind
from daybook_domain.catalog import products as service
from daybook_domain.catalog import queries
from daybook_domain.catalog.products import NewProduct, ProductChanges
from daybook_domain.errors import Invalid

router = APIRouter(prefix="/products", tags=["products"])


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
        found, total = await queries.list_products(
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

    return await cached_response(
        app, EntityKey(EntityKind.PRODUCT, product_id), fetch, model=ProductOut
    )


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
