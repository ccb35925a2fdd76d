"""/products: the catalogue of products."""

from http import HTTPStatus
from typing import Annotated, cast

from fastapi import APIRouter, Query, Request, Response

from daybook_api.dependencies import App
from daybook_api.etags import ETAG_RESPONSE, IfMatch, content_etag
from daybook_api.idempotency import CREATED_RESPONSE, Idempotency
from daybook_api.pagination import PathId
from daybook_api.products.schemas import (
    ProductIn,
    ProductOut,
    ProductPatch,
    Products,
    ProductsQuery,
)
from daybook_domain.catalog import products as service
from daybook_domain.catalog import queries
from daybook_domain.catalog.errors import ProductNotFound
from daybook_domain.catalog.products import ProductChanges
from daybook_domain.catalog.rendering import PRODUCT_QUERY
from daybook_domain.errors import Invalid

router = APIRouter(prefix="/products", tags=["products"])


@router.get("")
async def list_products(
    request: Request, response: Response, query: Annotated[ProductsQuery, Query()], app: App
) -> Products:
    """List products, newest first."""
    lowest, highest = query.min_price, query.max_price
    if lowest is not None and highest is not None and lowest > highest:
        raise Invalid(
            f"`min_price` ({lowest}) is greater than `max_price` ({highest}).",
            field="min_price",
        )
    position = query.position()
    async with app.sessions() as session:
        found, total = await queries.list_products(
            session,
            name=query.name,
            min_price=lowest,
            max_price=highest,
            before=position,
            limit=query.count + 1,
            offset=query.offset,
        )
    page = query.take_page(found, request, response)
    return Products(products=[ProductOut.model_validate(product) for product in page], total=total)


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


@router.get("/{product_id}", response_model=ProductOut, responses={200: ETAG_RESPONSE})
async def get_product(product_id: PathId, app: App) -> Response:
    """Get a product."""
    body = await app.entities.find(PRODUCT_QUERY, product_id)
    if body is None:
        raise ProductNotFound(f"Product {product_id} does not exist.")
    tag = content_etag(ProductOut.model_validate_json(body))
    return Response(body, media_type="application/json", headers={"ETag": tag})


@router.put("/{product_id}", operation_id="put_product", responses={200: ETAG_RESPONSE})
@router.patch("/{product_id}", responses={200: ETAG_RESPONSE})
async def change_product(
    product_id: PathId, body: ProductPatch, if_match: IfMatch, app: App, response: Response
) -> ProductOut:
    """Change the given fields of a product; `stock_quantity` replaces the current stock."""
    changes = cast("ProductChanges", body.model_dump(exclude_none=True))
    async with app.sessions.begin() as session:
        if if_match:
            current = await queries.get_product_for_update(session, product_id)
            if_match.require(ProductOut.model_validate(current))
        product = ProductOut.model_validate(
            await service.change_product(session, product_id, changes=changes)
        )
    response.headers["ETag"] = content_etag(product)
    return product


@router.delete("/{product_id}", status_code=HTTPStatus.NO_CONTENT, response_class=Response)
async def delete_product(product_id: PathId, if_match: IfMatch, app: App) -> None:
    """Delete a product that no order contains."""
    async with app.sessions.begin() as session:
        if if_match:
            current = await queries.get_product_for_delete(session, product_id)
            if_match.require(ProductOut.model_validate(current))
        await service.delete_product(session, product_id)
