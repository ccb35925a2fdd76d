"""Parameters, ids and links of paginated lists."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Protocol, TypeVar
from uuid import UUID

from fastapi import Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from daybook_api import cursors
from daybook_domain.errors import Invalid
from daybook_domain.validation import MAX_ID

T = TypeVar("T")

LAST_PAGE = 10_000
"""The last page of lists with page numbers: a page costs reading all rows before it."""

PathId = Annotated[int, Field(ge=1, le=MAX_ID)]
"""An integer key in a path or a query string, where every value is text."""

BeforeCursor = Annotated[
    str | None,
    Field(description="Opaque cursor: `next` of the previous page.", max_length=200),
]
"""The position at which a page of a list, newest first, starts; see `cursors`."""


def uuid_validator(resource: str, *, listed_by: str) -> BeforeValidator:
    """Return a validator of the id of `resource`, whose error names the path that lists ids."""

    def parse(value: object) -> UUID:
        try:
            return UUID(str(value))
        except ValueError:
            raise ValueError(
                f"{str(value)[:40].encode(errors='backslashreplace').decode()} is not the id of"
                f" {resource};"
                f" expected a UUID, as listed by GET {listed_by}"
            ) from None

    return BeforeValidator(parse)


def split_page(found: Sequence[T], *, limit: int) -> tuple[Sequence[T], T | None]:
    """Return the first `limit` items, and the last of them if more were found.

    A list reads one item more than its page has, to know whether there is a next page.
    """
    page = found[:limit]
    return page, page[-1] if len(found) > limit else None


def add_next_link(request: Request, response: Response, **position: object) -> None:
    """Add a `Link` header with the URL of the next page, which starts at `position` (RFC 8288).

    A position that is None is that of no next page.
    """
    if None in position.values():
        return
    url = request.url.remove_query_params("page").include_query_params(**position)
    response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'


class Listed(Protocol):
    """A row of a list that is ordered by time and id."""

    id: int | None
    created_at: datetime


Row = TypeVar("Row", bound=Listed)


class PageQuery(BaseModel):
    """The requested page of a list, newest first."""

    model_config = ConfigDict(extra="forbid")

    count: Annotated[int, Field(ge=1, le=100, description="Number of items per page.")] = 10
    page: Annotated[int, Field(ge=1, le=LAST_PAGE, description="Page number, from 1.")] = 1
    before: BeforeCursor = None

    @property
    def offset(self) -> int:
        """The number of items before this page."""
        return (self.page - 1) * self.count

    def position(self) -> tuple[datetime, int] | None:
        """Return the time and id behind which the page starts. Raises `Invalid`."""
        if self.before is None:
            return None
        if self.page > 1:
            raise Invalid("cannot be combined with `page`; expected one of them", field="before")
        return cursors.decode_row(self.before)

    def take_page(
        self, found: Sequence[Row], request: Request, response: Response
    ) -> Sequence[Row]:
        """Return the rows of the page, and add a `Link` header if `found` has one more.

        The link names a position, so that rows that are added meanwhile repeat none.
        """
        page, last = split_page(found, limit=self.count)
        if last is not None:
            assert last.id is not None
            add_next_link(request, response, before=cursors.encode(last.created_at, last.id))
        return page
