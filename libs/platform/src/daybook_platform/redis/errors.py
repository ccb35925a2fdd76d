"""What does it mean that Redis does not answer?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from daybook_domain.errors import Unavailable


@asynccontextmanager
async def raise_unavailable(detail: str, *, within: float | None) -> AsyncIterator[None]:
    """Raise `Unavailable`, saying `detail`, when Redis fails or takes longer (seconds)."""
    try:
        async with asyncio.timeout(within):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(detail) from error
