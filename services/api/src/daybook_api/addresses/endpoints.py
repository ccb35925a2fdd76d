"""/users/{user_id}/addresses: delivery addresses of a user."""

from http import HTTPStatus
from typing import Annotated, cast

from fastapi import APIRouter, Query, Request, Response

from daybook_api.addresses.schemas import Addresses, AddressIn, AddressOut, AddressPatch
from daybook_api.dependencies import App
from daybook_api.idempotency import CREATED_RESPONSE, Idempotency
from daybook_api.pagination import PageQuery, PathId
from daybook_domain.catalog import addresses as service
from daybook_domain.catalog import queries
from daybook_domain.catalog.addresses import AddressChanges, NewAddress

router = APIRouter(prefix="/users/{user_id}/addresses", tags=["users"])


@router.get("")
async def list_addresses(
    user_id: PathId,
    request: Request,
    response: Response,
    query: Annotated[PageQuery, Query()],
    app: App,
) -> Addresses:
    """List the addresses of a user, newest first."""
    position = query.position()
    async with app.sessions() as session:
        found, total = await queries.list_addresses(
            session, user_id=user_id, before=position, limit=query.count + 1, offset=query.offset
        )
    page = query.take_page(found, request, response)
    return Addresses(
        addresses=[AddressOut.model_validate(address) for address in page], total=total
    )


@router.post(
    "", status_code=HTTPStatus.CREATED, response_model=AddressOut, responses={201: CREATED_RESPONSE}
)
async def create_address(
    user_id: PathId, body: AddressIn, app: App, idempotency: Idempotency
) -> Response:
    """Create an address of a user."""
    async with app.sessions.begin() as session:
        if (stored := await idempotency.replay(session, body)) is not None:
            return stored
        address = await service.add_address(
            session, user_id, NewAddress(**body.model_dump(exclude_none=True))
        )
        return await idempotency.store(
            session,
            AddressOut.model_validate(address),
            location=f"/users/{user_id}/addresses/{address.id}",
        )


@router.get("/{address_id}")
async def get_address(user_id: PathId, address_id: PathId, app: App) -> AddressOut:
    """Get an address of a user."""
    async with app.sessions() as session:
        return AddressOut.model_validate(
            await queries.get_address(session, address_id, user_id=user_id)
        )


@router.put("/{address_id}", operation_id="put_address")
@router.patch("/{address_id}")
async def change_address(
    user_id: PathId, address_id: PathId, body: AddressPatch, app: App
) -> AddressOut:
    """Change the given fields of an address."""
    changes = cast("AddressChanges", body.model_dump(exclude_none=True))
    async with app.sessions.begin() as session:
        return AddressOut.model_validate(
            await service.change_address(session, address_id, user_id=user_id, changes=changes)
        )


@router.delete("/{address_id}", status_code=HTTPStatus.NO_CONTENT, response_class=Response)
async def delete_address(user_id: PathId, address_id: PathId, app: App) -> None:
    """Delete an address that no order refers to."""
    async with app.sessions.begin() as session:
        await service.delete_address(session, address_id, user_id=user_id)
