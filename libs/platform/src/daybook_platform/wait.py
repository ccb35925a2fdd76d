"""Interruptible wait for loops."""

import asyncio
from contextlib import suppress


async def wait(seconds: float, *, unless: asyncio.Event) -> bool:
    """Wait up to `seconds`, or until `unless` is set; return whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await unless.wait()
    return unless.is_set()
