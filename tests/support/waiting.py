"""Polling for conditions that a test cannot await."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def wait_until(
    condition: Callable[[], Awaitable[T]], *, seconds: float = 30, what: str = "it"
) -> T:
    """Poll `condition` until its result is truthy, and return that; fail after `seconds`."""
    result: T | None = None
    try:
        async with asyncio.timeout(seconds):
            # The condition depends on another process, which cannot set an event of this one.
            while not (result := await condition()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(
            f"{what} did not happen within {seconds:g} s; the last result was {result!r}"
        ) from None
    return result
