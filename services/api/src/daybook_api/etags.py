"""Entity tags of reports and entities, and their parsing (RFC 9110 sections 8.8.3 and 13.1)."""

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel

from daybook_domain.errors import Outdated
from daybook_domain.reports.rendering import RENDERING_VERSION, Edition, Format

ANY = "*"

_TAG = r'(?:W/)?"[\x21\x23-\x7E\x80-\xFF]*"'
_LIST = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")


def parse_etags(lines: Iterable[str]) -> frozenset[str]:
    """Return the entity tags in all lines of one header, unparsed, or `*` alone.

    Tags may contain commas, and a header may have several lines. A malformed header counts as
    empty: then no precondition matches, and no response is shortened to 304.
    """
    value = ",".join(lines)
    if value.strip(" \t") == ANY:
        return frozenset({ANY})
    return frozenset(re.findall(_TAG, value)) if _LIST.fullmatch(value) else frozenset()


def report_etag(edition: Edition, format: Format) -> str:
    """Return the strong entity tag of a report: different documents have different tags.

    The revision alone is not unique: a database that was restored or created again repeats
    revision numbers, but not the ids of the runs that made them. RFC 9110 section 8.8.3.
    """
    version = f"{edition.day}.{edition.revision}.{edition.run}.{edition.digest}"
    return f'"{version}.{format}{RENDERING_VERSION}"'


def content_etag(shown: BaseModel) -> str:
    """Return a strong entity tag of what a response shows.

    A digest, because not every write of the stock or the items of an order changes a version.
    """
    return f'"{sha256(shown.model_dump_json().encode()).hexdigest()[:32]}"'


class ExpectedTags:
    """The entity tags in `If-Match`, one of which must be current; any, without the header."""

    def __init__(self, tags: frozenset[str] | None) -> None:
        self._tags = tags

    def __bool__(self) -> bool:
        """Whether a particular tag is expected."""
        return self._tags is not None

    def require(self, current: BaseModel) -> None:
        """Raise `Outdated` if the row, which the caller has locked, is not as expected."""
        if self._tags is not None and content_etag(current) not in self._tags:
            raise Outdated(
                "The resource has changed since it was read, or `If-Match` has no ETag of it; read"
                " it again, and decide whether the change still makes sense."
            )


async def _expected_tags(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description="`ETag` of the representation that was read; the change is refused with"
            " 412 if it is outdated.",
        ),
    ] = None,
) -> ExpectedTags:
    if if_match is None:
        return ExpectedTags(None)
    # The header may have several lines, of which FastAPI passes the last.
    tags = parse_etags(request.headers.getlist("if-match"))
    return ExpectedTags(None if ANY in tags else tags)


IfMatch = Annotated[ExpectedTags, Depends(_expected_tags)]

ETAG_RESPONSE = {
    "headers": {
        "ETag": {"description": "Entity tag, for `If-Match`.", "schema": {"type": "string"}}
    }
}
"""The response header of resources with an entity tag, for the OpenAPI document."""
