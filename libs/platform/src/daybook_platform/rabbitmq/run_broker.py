"""How do run messages travel through RabbitMQ?"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from aio_pika import ExchangeType
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractIncomingMessage,
    AbstractQueue,
    ConsumerTag,
)
from aiormq import Channel
from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from daybook_domain.errors import Unavailable
from daybook_platform import ack_policy, backoff
from daybook_platform.ack_policy import AckAction, Disposition
from daybook_platform.rabbitmq import batch_publisher, queue_arguments
from daybook_platform.rabbitmq.connections import CLOSE_SECONDS, close, close_later, connect, within

log = structlog.stdlib.get_logger(__name__)

RUNS = "daybook.runs"
DEAD_LETTERS = "daybook.runs.dead"

Inbox = asyncio.Queue[AbstractIncomingMessage | None]
"""Deliveries as they come; None: no more will come over this channel."""

_SHUT_DOWN = "the publisher was shut down"


@dataclass
class _Outgoing:
    """A message that is being sent."""

    message: batch_publisher.OutgoingMessage
    outcome: asyncio.Future[Exception | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """What its sender waits for: the error, or None."""
    confirmation: batch_publisher.Confirmation | None = None

    def settle(self, error: Exception | None) -> None:
        """Tell the sender; what RabbitMQ has confirmed is no longer touched by `error`."""
        if self.outcome.done():  # He does not wait any more.
            return
        confirmation = self.confirmation
        confirmed = confirmation and confirmation.done() and not confirmation.exception()
        self.outcome.set_result(None if confirmed else error)


class RabbitRunBroker(AioPikaBroker):
    """TaskIQ's RabbitMQ broker, on connections that we open and give up ourselves.

    aio-pika's robust connections wait as long as it takes, which a caller of `kick` cannot, and
    restore consumers whose deliveries the old channel still counts. Here a connection that is lost
    is thrown away, with all that hung on it: the next kick opens one, and `listen` opens one with
    increasing pauses. Neither needs RabbitMQ to be there at the start.
    """

    def __init__(self, url: str, *, prefetch: int, application: str, timeout: float) -> None:
        super().__init__(
            url,
            qos=prefetch,
            exchange=Exchange(name=RUNS, type=ExchangeType.DIRECT),
            task_queues=[Queue(name=RUNS)],
        )
        self._address = url
        self._application = application
        self._timeout = timeout
        self._publisher: AbstractConnection | None = None
        self._publisher_lock = asyncio.Lock()
        self._outgoing: list[_Outgoing] = []
        self._sendings: set[asyncio.Task[None]] = set()
        self._consumer: AbstractConnection | None = None
        self._consuming = False
        self._is_open = False

    async def startup(self) -> None:
        """Start without a connection: RabbitMQ may come later."""
        self._is_open = True
        await AsyncBroker.startup(self)

    async def shutdown(self) -> None:
        """Close the connections; what was delivered and not settled goes back to the queue."""
        try:
            await AsyncBroker.shutdown(self)
        finally:
            self._is_open = False
            for sending in tuple(self._sendings):
                # It may be about to open a connection, which nobody would close.
                sending.cancel()
            for outgoing in self._outgoing:  # Those of a sending that has not begun.
                outgoing.settle(Unavailable(_SHUT_DOWN))
            publisher, consumer = self._publisher, self._consumer
            self._publisher = self._consumer = self.write_channel = None
            await asyncio.gather(*map(close, filter(None, (publisher, consumer))))

    async def ping(self) -> None:
        """Return when RabbitMQ answers and, in a worker, delivers; raises `Unavailable`."""
        if self.is_worker_process and not self._consuming:
            raise Unavailable("not consuming from RabbitMQ")
        await self._publish(self._open_publisher())

    async def kick(self, message: BrokerMessage) -> None:
        """Publish `message`; returns when the queue has it, on disk. Raises `Unavailable`.

        What is kicked in the same moment travels together. Labels travel as headers; those by which
        TaskIQ's broker would delay a message, or let it overtake others, are no more than that.
        """
        names = {"task_id": message.task_id, "task_name": message.task_name}
        outgoing = _Outgoing(
            batch_publisher.OutgoingMessage(
                message.task_id, names | message.labels, message.message
            )
        )
        self._outgoing.append(outgoing)
        if len(self._outgoing) == 1:
            sending = asyncio.create_task(self._send_outgoing())
            self._sendings.add(sending)
            sending.add_done_callback(self._sendings.discard)
        error = await outgoing.outcome
        if isinstance(error, Unavailable):
            # One for each sender: raised by a hundred, it would collect the traces of them all.
            raise Unavailable(*error.args) from error.__cause__
        if error is not None:
            raise error

    async def _send_outgoing(self) -> None:
        batch, self._outgoing = self._outgoing, []
        error: Exception | None = None
        try:
            await self._publish(self._send(batch))
        except asyncio.CancelledError:
            error = Unavailable(_SHUT_DOWN)
        except Exception as caught:
            error = caught
        for outgoing in batch:
            outgoing.settle(error)

    async def _publish(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await within(self._timeout, work, detail="RabbitMQ did not take the message")
        except Unavailable:
            self._give_up_publisher()
            raise

    async def _send(self, batch: Sequence[_Outgoing]) -> None:
        channel = await self._open_publisher()
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, Channel)
        confirmations = await batch_publisher.publish(
            underlay, [outgoing.message for outgoing in batch], exchange=RUNS, routing_key=RUNS
        )
        for outgoing, confirmation in zip(batch, confirmations, strict=True):
            outgoing.confirmation = confirmation
        await asyncio.wait(confirmations)
        for confirmation in confirmations:
            confirmation.result()

    async def _open_publisher(self) -> AbstractChannel:
        async with self._publisher_lock:
            if self.write_channel is not None and not self.write_channel.is_closed:
                return self.write_channel
            self._give_up_publisher()
            connection = self._publisher = await self._connect("publisher")
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            await declare_queues(channel)
            if self._publisher is connection:  # It was not given up in the meantime.
                self.write_channel = channel
            return channel

    def _give_up_publisher(self) -> None:
        connection, self._publisher, self.write_channel = self._publisher, None, None
        if connection is not None:
            close_later(connection)

    async def _connect(self, role: str) -> AbstractConnection:
        return await connect(
            self._address, name=f"{self._application} {role}", timeout=self._timeout
        )

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield messages until `shutdown`, whether RabbitMQ is there or comes back later."""
        pauses = backoff.delays()
        while self._is_open:
            try:
                consumption = await self._consume()
            except Unavailable as error:
                pause = next(pauses)
                log.warning(
                    "cannot consume; trying again",
                    reason=repr(error.__cause__),
                    pause_seconds=round(pause, 1),
                )
                await asyncio.sleep(pause)
                continue
            pauses = backoff.delays()
            log.info("consuming", queue=RUNS)
            self._consuming = True
            try:
                while (delivery := await consumption.inbox.get()) is not None:
                    if reason := ack_policy.reject_reason(self, delivery.body):
                        await _settle(delivery, ack_policy.dead_letter(reason))
                        continue
                    yield AckableMessage(data=delivery.body, ack=partial(_settle, delivery))
            finally:
                # When the receiver stops listening, handlers still run: they need the channel to
                # acknowledge, so it stays open until `shutdown`.
                self._consuming = False
                await consumption.stop()
            log.warning("deliveries from RabbitMQ broke off")

    async def _consume(self) -> "_Consumption":
        if self._consumer is not None:
            close_later(self._consumer)
            self._consumer = None
        detail = "RabbitMQ does not deliver"
        connection = await within(
            self._timeout, self._connect("consumer"), detail=detail, undo=close_later
        )
        try:
            consumption = await within(
                self._timeout, _Consumption.begin(connection, prefetch=self._qos), detail=detail
            )
        except BaseException:
            # Without its connection, what may have begun nevertheless ends too.
            close_later(connection)
            raise
        self._consumer = connection
        return consumption


async def declare_queues(channel: AbstractChannel) -> AbstractQueue:
    """Declare exchanges and queues, all durable, and return the queue of run messages."""
    graveyard = await channel.declare_exchange(DEAD_LETTERS, ExchangeType.DIRECT, durable=True)
    dead = await channel.declare_queue(
        DEAD_LETTERS, durable=True, arguments=queue_arguments.dead_letter_queue()
    )
    await dead.bind(graveyard, routing_key=DEAD_LETTERS)
    exchange = await channel.declare_exchange(RUNS, ExchangeType.DIRECT, durable=True)
    queue = await channel.declare_queue(
        RUNS, durable=True, arguments=queue_arguments.work_queue(dead=DEAD_LETTERS)
    )
    await queue.bind(exchange, routing_key=RUNS)
    return queue


@dataclass
class _Consumption:
    """One consumer on one channel."""

    queue: AbstractQueue
    inbox: Inbox
    tag: ConsumerTag

    @classmethod
    async def begin(cls, connection: AbstractConnection, *, prefetch: int) -> "_Consumption":
        """Let deliveries run into the inbox, and a None when there will be no more."""
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=prefetch)
        queue = await declare_queues(channel)
        inbox: Inbox = asyncio.Queue()
        channel.close_callbacks.add(lambda *_: inbox.put_nowait(None))
        underlay = await channel.get_underlay_channel()
        # The server ends a consumer when its queue is deleted or its node leaves.
        underlay.on_consumer_cancel_callbacks.add(lambda _: inbox.put_nowait(None))
        return cls(queue=queue, inbox=inbox, tag=await queue.consume(inbox.put))

    async def stop(self) -> None:
        """Take no more deliveries, and give back those that nobody has begun with."""
        with suppress(Unavailable):
            await within(CLOSE_SECONDS, self._stop(), detail="not stopped")

    async def _stop(self) -> None:
        await self.queue.cancel(self.tag)
        while not self.inbox.empty():
            if delivery := self.inbox.get_nowait():
                await delivery.nack(requeue=True)


async def _settle(delivery: AbstractIncomingMessage, verdict: Disposition | None = None) -> None:
    verdict = verdict or ack_policy.get_disposition()
    if verdict.fate is AckAction.DONE:
        sending = delivery.ack()
    else:
        sending = delivery.reject(requeue=verdict.fate is AckAction.BACK)
    try:
        await within(CLOSE_SECONDS, sending, detail="the acknowledgement was not sent")
    except Unavailable:
        # Its channel is gone, so RabbitMQ delivers it again; the row knows what has been done.
        log.info("the connection went before the acknowledgement; the message will come again")
        return
    ack_policy.log_disposition(verdict, delivery.body)
