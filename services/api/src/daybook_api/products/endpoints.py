"""/products: the catalogue of products."""

from http import HTTPStatus
from typing import Annotated, cast

from fastapi import APIRouter, Query, Response

from daybook_api.cached_response import cached_response
from daybook_api.dependencies import App
from daybook_api.idempotency import CREATED_RESPONSE, Idempotency
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
from daybook_domain.catalog.products import ProductChanges
from daybook_domain.errors import Invalid

router = APIRouter(prefix="/products", tags=["products"])


@router.get("")
async def list_products(query: Annotated[ProductsQuery, Query()], app: App) -> Products:
    """List products, newest first."""
    lowest, highest = query.min_price, query.max_price
    if lowest is not None and highest is not None and lowest > highest:
        raise Invalid(
            f"`min_price` ({lowest}) is greater than `max_price` ({highest}).",
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
    return Products(products=[ProductOut.model_validate(product) for product in found], total=total)


@router.post(
    "", status_code=HTTPStatus.CREATED, response_model=ProductOut, responses={201: CREATED_RESPONSE}
)
async def create_product(body: ProductIn, app: App, idempotency: Idempotency) -> Response:
    """Create a product."""
    async with app.sessions.begin() as session:
        if (stored := await idempotency.replay(session, body)) is not None:
            return stored
        (product_id,) = await service.add_products(session, [body.to_domain()])
        product = await queries.get_product(session, product_id)
        return await idempotency.store(
            session, ProductOut.model_validate(product), location=f"/products/{product_id}"
        )


@router.get("/{product_id}", response_model=ProductOut)
async def get_product(product_id: PathId, app: App) -> Response:
    """Get a product."""

    async def fetch() -> ProductOut:
        async with app.sessions() as session:
            return ProductOut.model_validate(await queries.get_product(session, product_id))

    return await cached_response(
        app, EntityKey(EntityKind.PRODUCT, product_id), fetch, model=ProductOut
    )


@router.put("/{product_id}")
async def change_product(product_id: PathId, body: ProductPatch, app: App) -> ProductOut:
    """Change the given fields of a product; `stock_quantity` replaces the current stock."""
    changes = cast("ProductChanges", body.model_dump(exclude_none=True))
    async with app.sessions.begin() as session:
        return ProductOut.model_validate(
            await service.change_product(session, product_id, changes=changes)
        )


@router.delete("/{product_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_product(product_id: PathId, app: App) -> None:
    """Delete a product that no order contains."""
    async with app.sessions.begin() as session:
        await service.delete_product(session, product_id)
