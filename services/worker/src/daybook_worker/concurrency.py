"""Limit on the number of backfills that a worker builds concurrently."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slot:
    """A requested slot of a `ConcurrencyLimiter`: waiting, acquired, or released."""

    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore = semaphore
        self._acquisition = asyncio.ensure_future(semaphore.acquire())
        self._is_released = False

    @property
    def is_acquired(self) -> bool:
        """Whether the slot may be used."""
        return self._acquisition.done()

    async def wait(self, *, timeout: float) -> None:
        """Wait until the slot is acquired, at most `timeout` seconds; does not raise then."""
        await asyncio.wait({self._acquisition}, timeout=timeout)

    def release(self) -> None:
        """Release the slot, or withdraw the request for it; a second call does nothing."""
        if self._is_released:
            return
        self._is_released = True
        if not self._acquisition.cancel():
            self._semaphore.release()


class ConcurrencyLimiter:
    """Slots for backfills: one fewer than the builds that a worker runs concurrently.

    The remaining one is for urgent runs. A worker that runs one build at a time has one slot.
    """

    def __init__(self, *, concurrency: int) -> None:
        self._semaphore = asyncio.Semaphore(max(concurrency - 1, 1))

    @asynccontextmanager
    async def request_slot(self) -> AsyncIterator[Slot]:
        """Request a slot, first come first served; released on exit from the block."""
        slot = Slot(self._semaphore)
        try:
            # Let the acquisition run: a slot that is free is acquired when the block starts.
            await asyncio.sleep(0)
            yield slot
        finally:
            slot.release()
