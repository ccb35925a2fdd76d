"""Responses for single users and products, from the cache or the database, with equal bytes."""

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
    app: AppState, key: EntityKey, fetch: Callable[[], Awaitable[M]], *, model: type[M]
) -> Response:
    """Return the response that shows an entity, from the cache or else from `fetch`."""

    async def render() -> bytes:
        return (await fetch()).model_dump_json().encode()

    if app.cache is None:
        return _json_response(await render())
    return _json_response(await app.cache.read(key, render, shape=_schema_checksum(model)))


def _json_response(body: bytes) -> Response:
    return Response(body, media_type="application/json")


@cache
def _schema_checksum(model: type[BaseModel]) -> bytes:
    """Return a checksum of the schema, so that releases with other fields share no entries."""
    schema = json.dumps(model.model_json_schema(mode="serialization"), sort_keys=True)
    return b"%08x" % zlib.crc32(schema.encode())
