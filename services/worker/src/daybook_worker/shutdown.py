"""Graceful shutdown: signals and the drain."""

import asyncio
import signal
from collections.abc import Sequence

import structlog

from daybook_worker.roles import WorkerRole

log = structlog.stdlib.get_logger(__name__)

_CANCEL_TIMEOUT_SECONDS = 1.0


def handle_signals(roles: Sequence[WorkerRole]) -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets; a second one interrupts the work."""
    stop_requested = asyncio.Event()

    def on_signal() -> None:
        for role in roles:
            if stop_requested.is_set():
                role.interrupt()
            role.stop()
        stop_requested.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop_requested


async def drain(
    roles: Sequence[WorkerRole], tasks: Sequence[asyncio.Task[None]], *, timeout_seconds: float
) -> None:
    """Wait for the tasks of stopped roles to finish; interrupt those that exceed the timeout.

    Raises what a task raised.
    """
    log.info("draining", seconds=timeout_seconds)
    _, unfinished = await asyncio.wait(tasks, timeout=timeout_seconds)
    if unfinished:
        log.warning("drain timeout exceeded; interrupting active work")
        await asyncio.gather(*(role.interrupt_and_wait() for role in roles))
        await asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT_SECONDS)
    for task in tasks:
        if task.done():
            task.result()
        else:
            task.cancel()
