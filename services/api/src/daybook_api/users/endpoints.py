"""/users: customers who place orders."""

from http import HTTPStatus
from typing import Annotated, cast

from fastapi import APIRouter, Query, Response

from daybook_api.cached_response import cached_response
from daybook_api.dependencies import App
from daybook_api.idempotency import CREATED_RESPONSE, Idempotency
from daybook_api.pagination import PageQuery, PathId
from daybook_api.users.schemas import UserIn, UserOut, UserPatch, Users
from daybook_domain.cache_invalidation import EntityKey, EntityKind
from daybook_domain.catalog import queries
from daybook_domain.catalog import users as service
from daybook_domain.catalog.users import NewUser, UserChanges

router = APIRouter(prefix="/users", tags=["users"])


@router.get("")
async def list_users(query: Annotated[PageQuery, Query()], app: App) -> Users:
    """List users, newest first."""
    async with app.sessions() as session:
        found, total = await queries.list_users(session, limit=query.count, offset=query.offset)
    return Users(users=[UserOut.model_validate(user) for user in found], total=total)


@router.post(
    "", status_code=HTTPStatus.CREATED, response_model=UserOut, responses={201: CREATED_RESPONSE}
)
async def create_user(body: UserIn, app: App, idempotency: Idempotency) -> Response:
    """Create a user. Name and email must be unique."""
    async with app.sessions.begin() as session:
        if (stored := await idempotency.replay(session, body)) is not None:
            return stored
        user = await service.add_user(session, NewUser(**body.model_dump()))
        return await idempotency.store(
            session, UserOut.model_validate(user), location=f"/users/{user.id}"
        )


@router.get("/{user_id}", response_model=UserOut)
async def get_user(user_id: PathId, app: App) -> Response:
    """Get a user."""

    async def fetch() -> UserOut:
        async with app.sessions() as session:
            return UserOut.model_validate(await queries.get_user(session, user_id))

    return await cached_response(app, EntityKey(EntityKind.USER, user_id), fetch, model=UserOut)


@router.put("/{user_id}")
async def change_user(user_id: PathId, body: UserPatch, app: App) -> UserOut:
    """Change the given fields of a user."""
    changes = cast("UserChanges", body.model_dump(exclude_none=True))
    async with app.sessions.begin() as session:
        return UserOut.model_validate(await service.change_user(session, user_id, changes=changes))


@router.delete("/{user_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_user(user_id: PathId, app: App) -> None:
    """Delete a user without orders, and the user's addresses."""
    async with app.sessions.begin() as session:
        await service.delete_user(session, user_id)
