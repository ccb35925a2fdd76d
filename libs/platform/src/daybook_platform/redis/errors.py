"""Translation of Redis failures into `Unavailable`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from daybook_domain.errors import Unavailable


@asynccontextmanager
async def raise_unavailable(detail: str, *, timeout: float | None) -> AsyncIterator[None]:
    """Raise `Unavailable(detail)` when the block fails in Redis or exceeds `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(detail) from error
