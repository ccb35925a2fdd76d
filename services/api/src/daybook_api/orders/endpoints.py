"""/orders: placing, changing and deleting orders."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_api.dependencies import App
from daybook_api.etags import ETAG_RESPONSE, IfMatch, content_etag
from daybook_api.idempotency import CREATED_RESPONSE, Idempotency
from daybook_api.orders.schemas import OrderIn, OrderOut, OrderPatch, Orders, OrdersQuery
from daybook_api.pagination import PathId
from daybook_domain.errors import DaybookError
from daybook_domain.orders import queries, service
from daybook_domain.orders.order_placement import place_orders

router = APIRouter(prefix="/orders", tags=["orders"])


@router.get("")
async def list_orders(
    request: Request, response: Response, query: Annotated[OrdersQuery, Query()], app: App
) -> Orders:
    """List orders, newest first."""
    position = query.position()
    created_from, created_before = query.instants(timezone=app.timezone)
    async with app.sessions() as session:
        found, total = await queries.list_orders(
            session,
            user_id=query.user_id,
            status=query.status,
            external_id=query.external_id,
            created_from=created_from,
            created_before=created_before,
            before=position,
            limit=query.count + 1,
            offset=query.offset,
        )
        page = query.take_page(found, request, response)
        items = await queries.list_items(
            session, [order.id for order in page if order.id is not None]
        )
    return Orders(
        orders=[OrderOut.of(order, items[order.id]) for order in page if order.id is not None],
        total=total,
    )


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=OrderOut,
    responses={
        200: {"model": OrderOut, "description": "An equal order with this `external_id` exists."},
        201: CREATED_RESPONSE,
    },
)
async def place_order(body: OrderIn, app: App, idempotency: Idempotency) -> Response:
    """Place an order at the current prices and deduct its items from the stock."""
    async with app.sessions.begin() as session:
        if (stored := await idempotency.replay(session, body)) is not None:
            return stored
        (placed,) = await place_orders(session, [body.to_domain()])
        if isinstance(placed, DaybookError):
            raise placed
        return await idempotency.store(
            session,
            await _get_order_out(session, placed.order_id),
            location=f"/orders/{placed.order_id}",
            status=HTTPStatus.OK if placed.duplicate else HTTPStatus.CREATED,
        )


@router.get("/{order_id}", responses={200: ETAG_RESPONSE})
async def get_order(order_id: PathId, app: App, response: Response) -> OrderOut:
    """Get an order."""
    async with app.sessions() as session:
        order = await _get_order_out(session, order_id)
    response.headers["ETag"] = content_etag(order)
    return order


@router.put("/{order_id}", operation_id="put_order", responses={200: ETAG_RESPONSE})
@router.patch("/{order_id}", responses={200: ETAG_RESPONSE})
async def change_order(
    order_id: PathId, body: OrderPatch, if_match: IfMatch, app: App, response: Response
) -> OrderOut:
    """Change the given fields of an order; new items replace all items, at the current prices."""
    async with app.sessions.begin() as session:
        if if_match:
            await queries.get_order_for_update(session, order_id)
            if_match.require(await _get_order_out(session, order_id))
        await service.change(session, order_id, changes=body.changes())
        order = await _get_order_out(session, order_id)
    response.headers["ETag"] = content_etag(order)
    return order


@router.delete("/{order_id}", status_code=HTTPStatus.NO_CONTENT, response_class=Response)
async def delete_order(order_id: PathId, if_match: IfMatch, app: App) -> None:
    """Delete an order that no report contains; pending and paid items return to the stock."""
    async with app.sessions.begin() as session:
        if if_match:
            await queries.get_order_for_delete(session, order_id)
            if_match.require(await _get_order_out(session, order_id))
        await service.delete(session, order_id)


async def _get_order_out(session: AsyncSession, order_id: int) -> OrderOut:
    order = await queries.get_order(session, order_id)
    return OrderOut.of(order, (await queries.list_items(session, [order_id]))[order_id])
