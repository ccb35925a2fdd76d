"""Consumer of the intake queues."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import aiormq.abc
from aio_pika.abc import AbstractConnection

from daybook_domain.errors import Unavailable
from daybook_domain.intake.messages import Queue
from daybook_domain.intake.parsing import DEAD_LETTER_QUEUE, Delivery, parse_delivery
from daybook_platform.rabbitmq.connections import (
    HEARTBEAT_SECONDS,
    close,
    close_later,
    connect,
    within,
)
from daybook_platform.rabbitmq.topology import declare_intake_queues
from daybook_platform.wait import wait

SUSPECT_DELIVERY_COUNT = 3
"""Failed deliveries after which a message is suspected to crash the worker."""

_MAX_BATCH_BYTES = 8_000_000
_INITIAL_PREFETCH = 1
_CANNOT_CONSUME = "cannot consume from RabbitMQ"


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A delivery and its delivery tag."""

    tag: int
    delivery: Delivery
    suspected: bool
    """Whether it may crash the worker, and so is delivered in a batch of its own."""


class IntakeConsumer:
    """Consumer of all intake queues on one channel, until that breaks or is closed.

    It starts with a prefetch of one message per queue. RabbitMQ delivers requeued messages first,
    so that message shows whether the queue contains one that crashes workers. If it does, messages
    are processed one by one, so that none is blamed for another; otherwise the prefetch is raised.
    """

    def __init__(self, connection: AbstractConnection, *, prefetch: int, timeout: float) -> None:
        """Set the parts; use `start` instead."""
        self.id: UUID = uuid4()
        self._connection = connection
        self._prefetch = prefetch
        self._timeout = timeout
        self._inbox: deque[ReceivedMessage] = deque()
        self._changed = asyncio.Event()
        self._stopped = False
        self._broken = False
        self._consumer_tags: dict[str, str] = {}
        self._limited_queues: set[str] = set()
        self._queues_to_raise: set[str] = set()
        self._acknowledged_tag = 0
        self._confirmed_alive_at = 0.0

    @classmethod
    async def start(
        cls, url: str, *, application: str, prefetch: int, timeout: float
    ) -> "IntakeConsumer":
        """Connect, declare the queues and consume; each step takes at most `timeout` seconds.

        Raises `Unavailable`, also as `QueueArgumentsMismatch`.
        """
        name = f"{application} intake"
        connection = await within(
            timeout,
            connect(url, name=name, timeout=timeout),
            detail=_CANNOT_CONSUME,
            discard=close_later,
        )
        consumer = cls(connection, prefetch=prefetch, timeout=timeout)
        try:
            await within(timeout, consumer._start(), detail=_CANNOT_CONSUME)
        except BaseException:
            close_later(connection)
            raise
        return consumer

    async def _start(self) -> None:
        channel = await self._connection.channel(publisher_confirms=False)
        await declare_intake_queues(channel)
        channel.close_callbacks.add(lambda *_: self._mark_broken())
        self._channel = await channel.get_underlay_channel()
        # The server cancels a consumer when its queue is deleted or its node leaves.
        self._channel.on_consumer_cancel_callbacks.add(lambda _: self._mark_broken())
        await self._channel.basic_qos(prefetch_count=_INITIAL_PREFETCH)
        for queue in (*(queue.value for queue in Queue), DEAD_LETTER_QUEUE):
            self._limited_queues.add(queue)
            self._consumer_tags[queue] = await self._consume(queue)
        self._mark_alive()

    async def _consume(self, queue: str) -> str:
        reply = await self._channel.basic_consume(queue, partial(self._on_message, queue))
        return str(reply.consumer_tag)

    async def _on_message(self, queue: str, message: aiormq.abc.DeliveredMessage) -> None:
        properties = message.header.properties
        headers: Mapping[str, Any] = properties.headers or {}
        count = headers.get("x-delivery-count", 0)
        suspected = (
            queue != DEAD_LETTER_QUEUE
            and isinstance(count, int)
            and count >= SUSPECT_DELIVERY_COUNT
        )
        if queue in self._limited_queues and not suspected:
            self._queues_to_raise.add(queue)
        delivery = parse_delivery(
            queue,
            message.body,
            message_id=properties.message_id,
            headers=headers,
            redelivered=bool(message.redelivered),
        )
        self._inbox.append(ReceivedMessage(message.delivery_tag or 0, delivery, suspected))
        self._mark_alive()
        self._changed.set()

    async def receive_batch(
        self, *, limit: int, max_delay: float, timeout: float
    ) -> Sequence[ReceivedMessage]:
        """Return up to `limit` messages, waiting `max_delay` seconds for more after the first.

        Returns an empty batch when no message arrived within `timeout` seconds, or after `stop`.
        Raises `Unavailable` when the channel has closed.
        """
        if not self._inbox:
            await self._wait(timeout)
        for queue in tuple(self._queues_to_raise):
            await within(self._timeout, self._raise_prefetch(queue), detail=_CANNOT_CONSUME)
        if self._inbox and len(self._inbox) < limit and not self._inbox[0].suspected:
            await asyncio.sleep(max_delay)
        if self._broken:
            raise Unavailable("the RabbitMQ channel closed")
        return [] if self._stopped else self._take_batch(limit)

    def _take_batch(self, limit: int) -> Sequence[ReceivedMessage]:
        batch: list[ReceivedMessage] = []
        size_bytes = 0
        while self._inbox and len(batch) < limit and size_bytes < _MAX_BATCH_BYTES:
            alone = self._inbox[0].suspected
            if alone and batch:
                break
            batch.append(self._inbox.popleft())
            size_bytes += len(batch[-1].delivery.body)
            if alone:
                break
        return batch

    async def _wait(self, seconds: float) -> None:
        self._changed.clear()
        if self._stopped or self._broken:
            return
        await wait(seconds, unless=self._changed)

    async def _raise_prefetch(self, queue: str) -> None:
        self._queues_to_raise.discard(queue)
        self._limited_queues.discard(queue)
        tag = self._consumer_tags[queue]
        await self._channel.basic_qos(prefetch_count=self._prefetch)
        self._consumer_tags[queue] = await self._consume(queue)
        await self._channel.basic_cancel(tag)

    async def acknowledge(self, messages: Sequence[ReceivedMessage]) -> None:
        """Acknowledge the latest batch, and return when RabbitMQ has processed that.

        Raises `Unavailable` when it may not have: then all messages may be redelivered.
        """
        await within(self._timeout, self._acknowledge(messages), detail="not acknowledged")

    async def _acknowledge(self, messages: Sequence[ReceivedMessage]) -> None:
        first, last = messages[0].tag, messages[-1].tag
        if first == self._acknowledged_tag + 1 and last == self._acknowledged_tag + len(messages):
            await self._channel.basic_ack(last, multiple=True, wait=False)
        else:
            # A delivery in between never reached the inbox: it must not be acknowledged with these.
            for message in messages:
                await self._channel.basic_ack(message.tag, wait=False)
        self._acknowledged_tag = last
        await self._round_trip()

    async def require_alive(self) -> None:
        """Return when RabbitMQ has confirmed that the channel is open. Raises `Unavailable`."""
        await within(self._timeout, self._round_trip(), detail="the RabbitMQ channel closed")

    async def _round_trip(self) -> None:
        # Any synchronous method will do: RabbitMQ processes the frames of a channel in order.
        await self._channel.basic_qos(prefetch_count=self._prefetch)
        self._mark_alive()

    def _mark_alive(self) -> None:
        self._confirmed_alive_at = asyncio.get_running_loop().time()

    @property
    def is_alive(self) -> bool:
        """Whether RabbitMQ cannot yet have requeued the deliveries, as far as is known here."""
        silence = asyncio.get_running_loop().time() - self._confirmed_alive_at
        return not self._broken and silence < HEARTBEAT_SECONDS

    def stop(self) -> None:
        """Make `receive_batch` return no more messages."""
        self._stopped = True
        self._changed.set()

    def _mark_broken(self) -> None:
        self._broken = True
        self._changed.set()

    async def close(self) -> None:
        """Close the connection; RabbitMQ requeues unacknowledged messages."""
        await close(self._connection)
