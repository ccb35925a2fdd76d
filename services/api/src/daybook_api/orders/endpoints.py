"""/orders: what was ordered."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_api.dependencies import App
from daybook_api.idempotency import CREATED, Idempotent
from daybook_api.orders.schemas import OrderIn, OrderOut, OrderPatch, Orders, OrdersQuery
from daybook_api.pagination import PathId
from daybook_domain.errors import DaybookError
from daybook_domain.orders import queries, service
from daybook_domain.orders.order_placement import place_orders

router = APIRouter(prefix="/orders", tags=["orders"])


@router.get("")
async def list_orders(query: Annotated[OrdersQuery, Query()], app: App) -> Orders:
    """List orders, newest first."""
    async with app.sessions() as session:
        found, total = await queries.list_orders(
            session,
            user_id=query.user_id,
            status=query.status,
            limit=query.count,
            offset=query.offset,
        )
        items = await queries.list_items(
            session, [order.id for order in found if order.id is not None]
        )
    return Orders(
        orders=[OrderOut.of(order, items[order.id]) for order in found if order.id is not None],
        total=total,
    )


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=OrderOut,
    responses={
        200: {"model": OrderOut, "description": "An order of this `external_id` exists, the same."},
        201: CREATED,
    },
)
async def place_order(body: OrderIn, app: App, once: Idempotent) -> Response:
    """Place an order, at the prices of this moment, and take its stock."""
    async with app.sessions.begin() as session:
        if (known := await once.replay(session, body)) is not None:
            return known
        (placed,) = await place_orders(session, [body.new()])
        if isinstance(placed, DaybookError):
            raise placed
        return await once.keep(
            session,
            await _told(session, placed.order_id),
            location=f"/orders/{placed.order_id}",
            status=HTTPStatus.OK if placed.duplicate else HTTPStatus.CREATED,
        )


@router.get("/{order_id}")
async def get_order(order_id: PathId, app: App) -> OrderOut:
    """Show an order."""
    async with app.sessions() as session:
        return await _told(session, order_id)


@router.put("/{order_id}")
async def change_order(order_id: PathId, body: OrderPatch, app: App) -> OrderOut:
    """Change what the body names; new items replace all old ones, at the prices of this moment."""
    async with app.sessions.begin() as session:
        await service.change(session, order_id, changes=body.changes())
        return await _told(session, order_id)


@router.delete("/{order_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_order(order_id: PathId, app: App) -> None:
    """Delete an order that no report counts; pieces that are still in the house are put back."""
    async with app.sessions.begin() as session:
        await service.delete(session, order_id)


async def _told(session: AsyncSession, order_id: int) -> OrderOut:
    order = await queries.get_order(session, order_id)
    return OrderOut.of(order, (await queries.list_items(session, [order_id]))[order_id])
