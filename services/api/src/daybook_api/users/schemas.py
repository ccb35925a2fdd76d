"""Request and response bodies of users."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from daybook_api.pagination import PageQuery
from daybook_domain.catalog.validation import Email, UserDescription, Username
from daybook_domain.validation import Storable


class UserIn(BaseModel):
    """A user to create."""

    model_config = ConfigDict(extra="forbid")

    username: Username
    email: Email
    description: UserDescription | None = None


class UserPatch(BaseModel):
    """Changes of a user; omitted and null fields remain as they are."""

    model_config = ConfigDict(extra="forbid")

    username: Username | None = None
    email: Email | None = None
    description: UserDescription | None = None


class UserOut(BaseModel):
    """A customer."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    username: str
    email: str
    description: str | None
    created_at: datetime
    updated_at: datetime


class Users(BaseModel):
    """A page of users, newest first."""

    users: list[UserOut]
    total: int


class UsersQuery(PageQuery):
    """Filters and page of the list of users."""

    email: Annotated[
        Annotated[str, Storable] | None,
        Field(max_length=320, description="The exact email address."),
    ] = None
