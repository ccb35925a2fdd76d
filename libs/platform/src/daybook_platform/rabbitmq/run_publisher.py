"""Publisher of run messages, with confirms."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import Channel

from daybook_domain.errors import Unavailable
from daybook_platform.rabbitmq import batch_publisher
from daybook_platform.rabbitmq.batch_publisher import OutgoingMessage
from daybook_platform.rabbitmq.connections import close, close_later, connect, within
from daybook_platform.rabbitmq.topology import RUNS, declare_run_queues

_SHUT_DOWN = "the publisher was shut down"


@dataclass
class _PendingMessage:
    """A message that is being sent."""

    message: OutgoingMessage
    outcome: asyncio.Future[Exception | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """The error, or None; the sender awaits it."""
    confirmation: batch_publisher.Confirmation | None = None

    def settle(self, error: Exception | None) -> None:
        """Set the outcome; `error` does not apply to a message that RabbitMQ has confirmed."""
        if self.outcome.done():  # The sender was cancelled.
            return
        confirmation = self.confirmation
        confirmed = confirmation and confirmation.done() and not confirmation.exception()
        self.outcome.set_result(None if confirmed else error)


class RunPublisher:
    """A publisher that connects on demand, and sends concurrent messages in one batch.

    After an error it discards its connection; the next message opens another.
    """

    def __init__(self, url: str, *, name: str, timeout: float) -> None:
        self._url = url
        self._name = name
        self._timeout = timeout
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._pending: list[_PendingMessage] = []
        self._sendings: set[asyncio.Task[None]] = set()

    async def publish(self, message: OutgoingMessage) -> None:
        """Publish `message`, and return when its queue has it on disk. Raises `Unavailable`.

        Messages that are published in the same iteration of the event loop share a batch.
        """
        pending = _PendingMessage(message)
        self._pending.append(pending)
        if len(self._pending) == 1:
            sending = asyncio.create_task(self._send_pending())
            self._sendings.add(sending)
            sending.add_done_callback(self._sendings.discard)
        error = await pending.outcome
        if isinstance(error, Unavailable):
            # A new exception for each sender: one that is raised by all collects all tracebacks.
            raise Unavailable(*error.args) from error.__cause__
        if error is not None:
            raise error

    async def ping(self) -> None:
        """Return when RabbitMQ responds. Raises `Unavailable`."""
        await self._run(self._open())

    async def close(self) -> None:
        """Close the connection; what is still being sent fails with `Unavailable`."""
        for sending in tuple(self._sendings):
            # It may be about to open a connection, which nothing would close.
            sending.cancel()
        for pending in self._pending:  # The batch of a sending that has not started.
            pending.settle(Unavailable(_SHUT_DOWN))
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            await close(connection)

    async def _send_pending(self) -> None:
        batch, self._pending = self._pending, []
        error: Exception | None = None
        try:
            await self._run(self._send(batch))
        except asyncio.CancelledError:
            error = Unavailable(_SHUT_DOWN)
        except Exception as caught:
            error = caught
        for pending in batch:
            pending.settle(error)

    async def _run(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await within(self._timeout, work, detail="RabbitMQ did not confirm the message")
        except Unavailable:
            self._discard_connection()
            raise

    async def _send(self, batch: Sequence[_PendingMessage]) -> None:
        channel = await self._open()
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, Channel)
        confirmations = await batch_publisher.publish(
            underlay, [pending.message for pending in batch], exchange=RUNS, routing_key=RUNS
        )
        for pending, confirmation in zip(batch, confirmations, strict=True):
            pending.confirmation = confirmation
        await asyncio.wait(confirmations)
        for confirmation in confirmations:
            confirmation.result()

    async def _open(self) -> AbstractChannel:
        async with self._opening:
            if self._channel is not None and not self._channel.is_closed:
                return self._channel
            self._discard_connection()
            connection = self._connection = await connect(
                self._url, name=self._name, timeout=self._timeout
            )
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            await declare_run_queues(channel)
            if self._connection is connection:  # It was not discarded in the meantime.
                self._channel = channel
            return channel

    def _discard_connection(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            close_later(connection)
