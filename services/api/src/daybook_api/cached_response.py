"""How is a single user or product shown, from a copy or from the database? Byte for byte alike."""

import json
import zlib
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TypeVar

from fastapi import Response
from pydantic import BaseModel

from daybook_api.dependencies import AppState
from daybook_domain.cache_invalidation import EntityKey

M = TypeVar("M", bound=BaseModel)


async def cached_response(
    app: AppState, thing: EntityKey, fetch: Callable[[], Awaitable[M]], *, model: type[M]
) -> Response:
    """Return the answer that shows `thing`: a copy of an earlier one, or what `fetch` finds."""

    async def body() -> bytes:
        return (await fetch()).model_dump_json().encode()

    if app.cache is None:
        return _answer(await body())
    return _answer(await app.cache.read(thing, body, shape=_shape(model)))


def _answer(body: bytes) -> Response:
    return Response(body, media_type="application/json")


@cache
def _shape(model: type[BaseModel]) -> bytes:
    """Return a name of what `model` shows; a release that shows more has another."""
    schema = json.dumps(model.model_json_schema(mode="serialization"), sort_keys=True)
    return b"%08x" % zlib.crc32(schema.encode())
