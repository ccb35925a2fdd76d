"""RabbitMQ connections with reliable timeouts.

aiormq swallows some cancellations and raises `CancelledError` where nothing was cancelled, so every
wait for RabbitMQ goes through `within`.
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
"""Heartbeat interval; RabbitMQ drops a peer that was silent for two of these."""

T = TypeVar("T")


async def connect(url: str, *, name: str, timeout: float) -> AbstractConnection:
    """Return a connection named `name` that does not reconnect.

    Raises aio-pika's connection errors, or `TimeoutError` after `timeout` seconds.
    """
    pamqp_patch.apply()
    address = URL(url)
    if "heartbeat" not in address.query:
        address = address.update_query(heartbeat=HEARTBEAT_SECONDS)
    connection = aio_pika.Connection(address, client_properties={"connection_name": name})
    try:
        await connection.connect(timeout=timeout)
    except BaseException:
        # Unclosed, it would close itself on garbage collection, perhaps without a running loop.
        close_later(connection)
        raise
    return connection


async def within(
    seconds: float,
    work: Coroutine[Any, Any, T],
    *,
    detail: str,
    discard: Callable[[T], object] | None = None,
) -> T:
    """Return the result of `work`. Raises `Unavailable` on a timeout or a connection error.

    `work` runs in its own task, since neither the timeout nor a cancellation of the caller may
    depend on how aiormq handles cancellation. A result that arrives too late goes to `discard`.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise Unavailable(detail) from TimeoutError(f"no response within {seconds:g} s")
    finally:
        if not task.done():
            _abandon(task, discard)
    if task.cancelled():
        raise Unavailable(detail) from ConnectionError("the connection was closed")
    error = task.exception()
    if isinstance(error, (*CONNECTION_EXCEPTIONS, TimeoutError)):
        raise Unavailable(detail) from error
    return task.result()


def _abandon(task: asyncio.Task[T], discard: Callable[[T], object] | None) -> None:
    task.cancel()
    _background_tasks.add(task)

    def on_done(task: asyncio.Task[T]) -> None:
        _background_tasks.discard(task)
        if not task.cancelled() and task.exception() is None and discard is not None:
            discard(task.result())

    task.add_done_callback(on_done)


_background_tasks: set[asyncio.Task[Any]] = set()
"""Strong references: the event loop itself does not prevent garbage collection of a task."""


async def close(connection: AbstractConnection) -> None:
    """Close a connection that may be broken; raises nothing, returns after at most two timeouts."""
    await asyncio.wait({close_later(connection)}, timeout=2 * CLOSE_SECONDS)


def close_later(connection: AbstractConnection) -> asyncio.Task[None]:
    """Start closing a connection that may be broken; return the task."""
    task = asyncio.create_task(_close(connection))
    _background_tasks.add(task)
    task.add_done_callback(_background_tasks.discard)
    return task


async def _close(connection: AbstractConnection) -> None:
    try:
        with suppress(*CONNECTION_EXCEPTIONS, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.close()
    finally:
        # aio-pika does not consider a close that timed out as closed: it would close again on
        # garbage collection, perhaps without a running loop. The second call returns immediately.
        await connection.close()
