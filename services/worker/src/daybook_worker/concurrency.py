"""How does what is urgent find a place, while all that waits are backfills?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slot:
    """A place that was asked for: it comes, and is given back."""

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free = free
        self._asking = asyncio.ensure_future(free.acquire())
        self._is_over = False

    @property
    def has_come(self) -> bool:
        """Whether the place may be used."""
        return self._asking.done()

    async def comes(self, *, within: float) -> None:
        """Wait for the place, for so many seconds at most."""
        await asyncio.wait({self._asking}, timeout=within)

    def give_up(self) -> None:
        """Let another have the place; a second time does nothing."""
        if self._is_over:
            return
        self._is_over = True
        if not self._asking.cancel():
            self._free.release()


class ConcurrencyLimiter:
    """Of the builds that a worker does at once, backfills may be all but one.

    Where only one is done at once, it may be one.
    """

    def __init__(self, *, at_once: int) -> None:
        self._free = asyncio.Semaphore(max(at_once - 1, 1))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Slot]:
        """Stand in line for a place, first come first served, for as long as the block takes."""
        turn = Slot(self._free)
        try:
            # Where no place has to be waited for, it has come when the block begins.
            await asyncio.sleep(0)
            yield turn
        finally:
            turn.give_up()
