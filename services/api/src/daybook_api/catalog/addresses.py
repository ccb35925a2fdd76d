"""/users/{user_id}/addresses: where a user has things delivered to."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, cast

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict

from daybook_api.deps import App
from daybook_api.idempotency import CREATED, Idempotent
from daybook_api.lists import PageQuery, PathId
from daybook_domain.catalog import queries, service
from daybook_domain.catalog.fields import City, Country, State, Street, ZipCode
from daybook_domain.catalog.service import AddressChanges, NewAddress
from daybook_domain.fields import left_out

router = APIRouter(prefix="/users/{user_id}/addresses", tags=["users"])


class AddressIn(BaseModel):
    """An address to add; a primary one takes that from another."""

    model_config = ConfigDict(extra="forbid")

    street: Street
    city: City
    state: State | None = None
    zip_code: ZipCode
    country: Country
    is_primary: bool = False


class AddressPatch(BaseModel):
    """What is to be different about an address; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    street: Street = left_out()
    city: City = left_out()
    state: State | None = None
    zip_code: ZipCode = left_out()
    country: Country = left_out()
    is_primary: bool = left_out()


class AddressOut(BaseModel):
    """A place that a user has things delivered to."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    user_id: int
    street: str
    city: str
    state: str | None
    zip_code: str
    country: str
    is_primary: bool
    created_at: datetime
    updated_at: datetime


class Addresses(BaseModel):
    """A page of a user's addresses, newest first."""

    addresses: list[AddressOut]
    total: int


@router.get("")
async def list_addresses(
    user_id: PathId, query: Annotated[PageQuery, Query()], app: App
) -> Addresses:
    """List the addresses of a user, newest first."""
    async with app.sessions() as session:
        found, total = await queries.addresses(
            session, user_id=user_id, limit=query.count, offset=query.offset
        )
    return Addresses(addresses=[AddressOut.model_validate(one) for one in found], total=total)


@router.post(
    "", status_code=HTTPStatus.CREATED, response_model=AddressOut, responses={201: CREATED}
)
async def add_address(user_id: PathId, body: AddressIn, app: App, once: Idempotent) -> Response:
    """Add an address of a user."""
    async with app.sessions.begin() as session:
        if (known := await once.replay(session, body)) is not None:
            return known
        address = await service.add_address(session, user_id, NewAddress(**body.model_dump()))
        return await once.keep(
            session,
            AddressOut.model_validate(address),
            location=f"/users/{user_id}/addresses/{address.id}",
        )


@router.get("/{address_id}")
async def get_address(user_id: PathId, address_id: PathId, app: App) -> AddressOut:
    """Show an address."""
    async with app.sessions() as session:
        return AddressOut.model_validate(
            await queries.get_address(session, address_id, user_id=user_id)
        )


@router.put("/{address_id}")
async def change_address(
    user_id: PathId, address_id: PathId, body: AddressPatch, app: App
) -> AddressOut:
    """Change what the body names."""
    changes = cast("AddressChanges", body.model_dump(exclude_unset=True))
    async with app.sessions.begin() as session:
        return AddressOut.model_validate(
            await service.change_address(session, address_id, user_id=user_id, changes=changes)
        )


@router.delete("/{address_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_address(user_id: PathId, address_id: PathId, app: App) -> None:
    """Delete an address that no order goes to."""
    async with app.sessions.begin() as session:
        await service.delete_address(session, address_id, user_id=user_id)
