"""Is a schedule still what its editor has seen? `ETag` and `If-Match` (RFC 9110 §13.1.1)."""

import re
from typing import Annotated

from fastapi import Depends, Header

from daybook_api.errors import PreconditionRequired
from daybook_domain.schedules.errors import ScheduleChanged

_TAG = re.compile(r'"([0-9]{1,9})"')


def etag(version: int) -> str:
    """Return the entity tag of a version."""
    return f'"{version}"'


async def _expected(
    if_match: Annotated[
        str | None,
        Header(description="The `ETag` that was read; `*` for whichever. Required."),
    ] = None,
) -> int | None:
    if if_match is None:
        raise PreconditionRequired(
            "Send `If-Match` with the ETag of GET /schedules/{id}, so that no change of somebody"
            " else is lost; or `If-Match: *` to change it whatever it is now."
        )
    if if_match.strip() == "*":
        return None
    found = _TAG.fullmatch(if_match.strip())
    if found is None:
        # A weak tag, or one that we never gave, matches nothing.
        raise ScheduleChanged(f"{if_match[:50]} is not an ETag that GET /schedules/{{id}} gives.")
    return int(found[1])


ExpectedVersion = Annotated[int | None, Depends(_expected)]
"""The version that the caller has seen; None: whichever."""
