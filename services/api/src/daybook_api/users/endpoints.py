"""/users: customers who place orders."""

from http import HTTPStatus
from typing import Annotated, cast

from fastapi import APIRouter, Query, Request, Response

from daybook_api.dependencies import App
from daybook_api.etags import ETAG_RESPONSE, IfMatch, content_etag
from daybook_api.idempotency import CREATED_RESPONSE, Idempotency
from daybook_api.pagination import PathId
from daybook_api.users.schemas import UserIn, UserOut, UserPatch, Users, UsersQuery
from daybook_domain.catalog import queries
from daybook_domain.catalog import users as service
from daybook_domain.catalog.errors import UserNotFound
from daybook_domain.catalog.rendering import USER_QUERY
from daybook_domain.catalog.users import NewUser, UserChanges

router = APIRouter(prefix="/users", tags=["users"])


@router.get("")
async def list_users(
    request: Request, response: Response, query: Annotated[UsersQuery, Query()], app: App
) -> Users:
    """List users, newest first."""
    position = query.position()
    async with app.sessions() as session:
        found, total = await queries.list_users(
            session, email=query.email, before=position, limit=query.count + 1, offset=query.offset
        )
    page = query.take_page(found, request, response)
    return Users(users=[UserOut.model_validate(user) for user in page], total=total)


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


@router.get("/{user_id}", response_model=UserOut, responses={200: ETAG_RESPONSE})
async def get_user(user_id: PathId, app: App) -> Response:
    """Get a user."""
    body = await app.entities.find(USER_QUERY, user_id)
    if body is None:
        raise UserNotFound(f"User {user_id} does not exist.")
    tag = content_etag(UserOut.model_validate_json(body))
    return Response(body, media_type="application/json", headers={"ETag": tag})


@router.put("/{user_id}", operation_id="put_user", responses={200: ETAG_RESPONSE})
@router.patch("/{user_id}", responses={200: ETAG_RESPONSE})
async def change_user(
    user_id: PathId, body: UserPatch, if_match: IfMatch, app: App, response: Response
) -> UserOut:
    """Change the given fields of a user."""
    changes = cast("UserChanges", body.model_dump(exclude_none=True))
    async with app.sessions.begin() as session:
        if if_match:
            current = await queries.get_user_for_update(session, user_id)
            if_match.require(UserOut.model_validate(current))
        user = UserOut.model_validate(await service.change_user(session, user_id, changes=changes))
    response.headers["ETag"] = content_etag(user)
    return user


@router.delete("/{user_id}", status_code=HTTPStatus.NO_CONTENT, response_class=Response)
async def delete_user(user_id: PathId, if_match: IfMatch, app: App) -> None:
    """Delete a user without orders, and the user's addresses."""
    async with app.sessions.begin() as session:
        if if_match:
            current = await queries.get_user_for_delete(session, user_id)
            if_match.require(UserOut.model_validate(current))
        await service.delete_user(session, user_id)
