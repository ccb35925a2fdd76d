"""Parameters, ids and links of paginated lists."""

from typing import Annotated
from uuid import UUID

from fastapi import Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from daybook_domain.validation import MAX_ID

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
                f"{str(value)[:40].encode(errors='backslashreplace').decode()} is not the id of {resource};"
                f" expected a UUID, as listed by GET {listed_by}"
            ) from None

    return BeforeValidator(parse)


def add_next_link(request: Request, response: Response, *, before: object) -> None:
    """Add a `Link` header with the URL of the next page (RFC 8288)."""
    url = request.url.include_query_params(before=before)
    response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'


class PageQuery(BaseModel):
    """The requested page of a list, newest first."""

    model_config = ConfigDict(extra="forbid")

    count: Annotated[int, Field(ge=1, le=100, description="Number of items per page.")] = 10
    page: Annotated[int, Field(ge=1, le=LAST_PAGE, description="Page number, from 1.")] = 1

    @property
    def offset(self) -> int:
        """The number of items before this page."""
        return (self.page - 1) * self.count
