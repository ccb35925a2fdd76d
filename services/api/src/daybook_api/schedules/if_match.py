"""Optimistic concurrency of schedules by `ETag` and `If-Match` (RFC 9110 section 13.1.1)."""

import re
from typing import Annotated

from fastapi import Depends, Header, Request

from daybook_api import etags
from daybook_api.errors import PreconditionRequired
from daybook_domain.schedules.errors import ScheduleChanged

# Weak tags are excluded: the strong comparison never matches them.
_VERSION_TAG = re.compile(r'"([0-9]{1,9})"')


def version_etag(version: int) -> str:
    """Return the entity tag of a version."""
    return f'"{version}"'


async def _expected_versions(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description="`ETag` of the version that was read, or several; `*` for any version."
            " Required.",
            json_schema_extra={"x-required": True},
        ),
    ] = None,
) -> frozenset[int] | None:
    if if_match is None:
        raise PreconditionRequired(
            "If-Match is missing; send the ETag of GET /schedules/{id}, so that no other change is"
            " overwritten, or `If-Match: *` to change any version."
        )
    # The header may have several lines, of which FastAPI passes the last.
    lines = request.headers.getlist("if-match")
    tags = etags.parse_etags(lines)
    if etags.ANY in tags:
        return None
    versions = frozenset(int(found[1]) for tag in tags if (found := _VERSION_TAG.fullmatch(tag)))
    if not versions:
        shown = ", ".join(lines)[:50]
        raise ScheduleChanged(f"{shown} is not an ETag of GET /schedules/{{id}}.")
    return versions


ExpectedVersions = Annotated[frozenset[int] | None, Depends(_expected_versions)]
"""The versions one of which must be current; None for any version."""
