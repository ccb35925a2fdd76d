"""Which part of a list does a request ask for?"""

from typing import Annotated
from uuid import UUID

from fastapi import Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from daybook_domain.validation import MAX_ID

LAST_PAGE = 10_000
"""Deeper ones are read through all that comes before: filters find what is old."""

PathId = Annotated[int, Field(ge=1, le=MAX_ID)]
"""A key in a path or a query, where all is text."""


Before = Annotated[
    str | None, Field(description="`next` of the page before; opaque.", max_length=200)
]
"""Where a list goes on, newest first: what reports/cursors.py makes and reads."""


def uuid_of(what: str, *, listed_by: str) -> BeforeValidator:
    """Return what reads the id of `what` in a path, and tells where such ids are found."""

    def read(value: object) -> UUID:
        try:
            return UUID(str(value))
        except ValueError:
            raise ValueError(
                f"{str(value)[:40]} is not the id of {what}; expected a UUID, as in GET {listed_by}"
            ) from None

    return BeforeValidator(read)


def link_next(request: Request, response: Response, before: object) -> None:
    """Tell by a `Link` header where the list goes on."""
    url = request.url.include_query_params(before=before)
    response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'


class PageQuery(BaseModel):
    """Which page of a list, newest first."""

    model_config = ConfigDict(extra="forbid")

    count: Annotated[int, Field(ge=1, le=100, description="How many to a page.")] = 10
    page: Annotated[int, Field(ge=1, le=LAST_PAGE, description="From 1.")] = 1

    @property
    def offset(self) -> int:
        """How many come before this page."""
        return (self.page - 1) * self.count
