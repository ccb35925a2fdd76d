"""How does a test wait for something that it cannot await?"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(
    condition: Callable[[], Awaitable[T]], *, seconds: float = 30, what: str = "it"
) -> T:
    """Ask until the answer is truthy, and return it; fail when it is not so within `seconds`."""
    answer: T | None = None
    try:
        async with asyncio.timeout(seconds):
            # What is waited for happens in another process, which sets no event of ours.
            while not (answer := await condition()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(
            f"{what} did not happen within {seconds:g} s; the last answer was {answer!r}"
        ) from None
    return answer
