"""How is a connection to RabbitMQ opened, waited for, and given up?

aiormq must not decide how long its callers wait: it swallows some cancellations and raises others
that nobody asked for. So every wait for RabbitMQ goes through `within`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from yarl import URL

from daybook_domain.errors import Unavailable
from daybook_platform.rabbitmq import pamqp_patch

CLOSE_SECONDS = 1.0

HEARTBEAT_SECONDS = 15
"""RabbitMQ drops a peer that was silent for two of these."""

T = TypeVar("T")


async def connect(url: str, *, name: str, timeout: float) -> AbstractConnection:
    """Return a plain connection, shown to the server as `name`; it does not mend itself."""
    pamqp_patch.apply()
    address = URL(url)
    if "heartbeat" not in address.query:
        address = address.update_query(heartbeat=HEARTBEAT_SECONDS)
    connection = aio_pika.Connection(address, client_properties={"connection_name": name})
    try:
        await connection.connect(timeout=timeout)
    except BaseException:
        # Unclosed, it would close itself when it is collected, when there may be no loop to do so.
        close_later(connection)
        raise
    return connection


async def within(
    seconds: float,
    work: Coroutine[Any, Any, T],
    *,
    detail: str,
    undo: Callable[[T], object] | None = None,
) -> T:
    """Return the result of `work`; `Unavailable` when its connection dies, or it takes too long.

    It has a task of its own, since neither a timeout nor the end of the caller may depend on how
    aiormq takes a cancellation: it swallows some, and raises `CancelledError` where it cancelled
    nobody but its own waiters. `undo` gets the result for which nobody waits any more.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise Unavailable(detail) from TimeoutError(f"no answer within {seconds:g} s")
    finally:
        if not task.done():
            _abandon(task, undo)
    if task.cancelled():
        raise Unavailable(detail) from ConnectionError("the connection was closed")
    error = task.exception()
    if isinstance(error, (*CONNECTION_EXCEPTIONS, TimeoutError)):
        raise Unavailable(detail) from error
    return task.result()


def _abandon(task: asyncio.Task[T], undo: Callable[[T], object] | None) -> None:
    task.cancel()
    _abandoned.add(task)

    def end(task: asyncio.Task[T]) -> None:
        _abandoned.discard(task)
        if not task.cancelled() and task.exception() is None and undo is not None:
            undo(task.result())

    task.add_done_callback(end)


_abandoned: set[asyncio.Task[Any]] = set()
"""The event loop itself does not keep a task from being collected."""


async def close(connection: AbstractConnection) -> None:
    """Close what may be dead already; raises nothing, and returns after a moment."""
    await asyncio.wait({close_later(connection)}, timeout=2 * CLOSE_SECONDS)


def close_later(connection: AbstractConnection) -> asyncio.Task[None]:
    """Close what may be dead already, without waiting for it."""
    task = asyncio.create_task(_close(connection))
    _abandoned.add(task)
    task.add_done_callback(_abandoned.discard)
    return task


async def _close(connection: AbstractConnection) -> None:
    try:
        with suppress(*CONNECTION_EXCEPTIONS, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.close()
    finally:
        # To aio-pika, what was broken off is not closed: it would close it again when it is
        # collected, where there may be no loop. The second time there is nothing to wait for.
        await connection.close()
