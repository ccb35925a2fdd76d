"""Is a schedule still what its editor has seen? `ETag` and `If-Match` (RFC 9110 §13.1.1)."""

import re
from typing import Annotated

from fastapi import Depends, Header

from daybook_api import etags
from daybook_api.errors import PreconditionRequired
from daybook_domain.schedules.errors import ScheduleChanged

# By the strong comparison a weak tag matches nothing.
_TAG = re.compile(r'"([0-9]{1,9})"')


def etag(version: int) -> str:
    """Return the entity tag of a version."""
    return f'"{version}"'


async def _expected(
    if_match: Annotated[
        list[str] | None,
        Header(description="The `ETag` that was read, or several; `*` for whichever. Required."),
    ] = None,
) -> frozenset[int] | None:
    if if_match is None:
        raise PreconditionRequired(
            "Send `If-Match` with the ETag of GET /schedules/{id}, so that no change of somebody"
            " else is lost; or `If-Match: *` to change it whatever it is now."
        )
    tags = etags.named(if_match)
    if etags.ANY in tags:
        return None
    versions = frozenset(int(found[1]) for tag in tags if (found := _TAG.fullmatch(tag)))
    if not versions:
        said = ", ".join(if_match)[:50]
        raise ScheduleChanged(f"{said} is not an ETag that GET /schedules/{{id}} gives.")
    return versions


ExpectedVersions = Annotated[frozenset[int] | None, Depends(_expected)]
"""The versions of which the caller has seen one; None: whichever."""
