"""How does a loop pause, and go on at once when there is news?"""

import asyncio
from contextlib import suppress


async def wait(seconds: float, *, unless: asyncio.Event) -> bool:
    """Wait for so many seconds at most; tell whether the event has come."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await unless.wait()
    return unless.is_set()
