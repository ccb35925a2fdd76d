"""How do messages come from their producers, and how are they acknowledged?

Topology of the intake, and one consumer of all its queues. Arguments of a queue never change in
place; docs/intake.md tells how to move messages from a queue that has others.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import aiormq.abc
from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelPreconditionFailed
from aiormq.abc import FieldTable

from daybook_domain.errors import Unavailable
from daybook_domain.intake.messages import Queue
from daybook_domain.intake.parsing import DEAD_LETTER_QUEUE, Delivery, parse_delivery
from daybook_platform.rabbitmq import queue_arguments
from daybook_platform.rabbitmq.connections import (
    HEARTBEAT_SECONDS,
    close,
    close_later,
    connect,
    within,
)
from daybook_platform.wait import wait

SUSPECT_DELIVERY_COUNT = 3
"""A message that was delivered in vain so often may be what ends the workers."""

_LARGEST_BATCH_BYTES = 8_000_000
_AT_FIRST = 1


class QueueArgumentsMismatch(Unavailable):
    """A queue exists with other arguments than ours; somebody has to decide."""

    code = "wrong_queue"


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A delivery, and the tag by which it is acknowledged."""

    tag: int
    delivery: Delivery
    suspected: bool


async def declare(channel: AbstractChannel) -> None:
    """Declare our queues, all durable, and where RabbitMQ puts dead letters."""
    graveyard = await channel.declare_exchange(DEAD_LETTER_QUEUE, ExchangeType.DIRECT, durable=True)
    await _declare_queue(channel, DEAD_LETTER_QUEUE, queue_arguments.dead_letter_queue())
    await (await channel.get_queue(DEAD_LETTER_QUEUE, ensure=False)).bind(
        graveyard, routing_key=DEAD_LETTER_QUEUE
    )
    for queue in Queue:
        await _declare_queue(
            channel, queue.value, queue_arguments.work_queue(dead=DEAD_LETTER_QUEUE)
        )


async def _declare_queue(channel: AbstractChannel, name: str, arguments: FieldTable) -> None:
    try:
        await channel.declare_queue(name, durable=True, arguments=arguments)
    except ChannelPreconditionFailed as error:
        raise QueueArgumentsMismatch(
            f"queue {name!r} exists with other arguments than ours, and they cannot change in"
            " place; docs/intake.md tells how to move its messages"
        ) from error


class IntakeConsumer:
    """Deliveries of all queues over one channel, in their order, until it breaks or is closed.

    At first each queue delivers one message. RabbitMQ delivers first what was given back, so that
    message shows whether workers end with this queue's messages. If so, they come one by one, that
    none is blamed for another; else the queue is opened wide.
    """

    def __init__(self, connection: AbstractConnection, *, prefetch: int, timeout: float) -> None:
        """Name the parts; `begin` starts it."""
        self.consumer: UUID = uuid4()
        self._connection = connection
        self._prefetch = prefetch
        self._timeout = timeout
        self._inbox: deque[ReceivedMessage] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self._broken = False
        self._tags: dict[str, str] = {}
        self._narrow: set[str] = set()
        self._to_widen: set[str] = set()
        self._settled = 0
        self._heard_at = 0.0

    @classmethod
    async def begin(
        cls, url: str, *, application: str, prefetch: int, timeout: float
    ) -> "IntakeConsumer":
        """Connect, declare and consume. Raises `Unavailable`, also as `WrongQueue`."""
        detail = "RabbitMQ does not deliver"
        name = f"{application} intake"
        connection = await within(
            timeout, connect(url, name=name, timeout=timeout), detail=detail, undo=close_later
        )
        consumption = cls(connection, prefetch=prefetch, timeout=timeout)
        try:
            await within(timeout, consumption._begin(), detail=detail)
        except BaseException:
            close_later(connection)
            raise
        return consumption

    async def _begin(self) -> None:
        channel = await self._connection.channel(publisher_confirms=False)
        await declare(channel)
        channel.close_callbacks.add(lambda *_: self._break())
        self._channel = await channel.get_underlay_channel()
        # The server ends a consumer when its queue is deleted or its node leaves.
        self._channel.on_consumer_cancel_callbacks.add(lambda _: self._break())
        await self._channel.basic_qos(prefetch_count=_AT_FIRST)
        for queue in (*(queue.value for queue in Queue), DEAD_LETTER_QUEUE):
            self._narrow.add(queue)
            self._tags[queue] = await self._consume(queue)
        self._hear()

    async def _consume(self, queue: str) -> str:
        answer = await self._channel.basic_consume(queue, partial(self._arrive, queue))
        return str(answer.consumer_tag)

    async def _arrive(self, queue: str, message: aiormq.abc.DeliveredMessage) -> None:
        properties = message.header.properties
        headers: Mapping[str, Any] = properties.headers or {}
        count = headers.get("x-delivery-count", 0)
        suspected = (
            queue != DEAD_LETTER_QUEUE
            and isinstance(count, int)
            and count >= SUSPECT_DELIVERY_COUNT
        )
        if queue in self._narrow and not suspected:
            self._to_widen.add(queue)
        delivery = parse_delivery(
            queue,
            message.body,
            message_id=properties.message_id,
            headers=headers,
            redelivered=bool(message.redelivered),
        )
        self._inbox.append(ReceivedMessage(message.delivery_tag or 0, delivery, suspected))
        self._hear()
        self._news.set()

    async def gather(
        self, *, most: int, linger: float, patience: float
    ) -> Sequence[ReceivedMessage]:
        """Return what has come: at most `most`, waiting `linger` seconds for company.

        Empty when nothing came within `patience` seconds, or `end` was called. Raises
        `Unavailable` when there will be no more.
        """
        if not self._inbox:
            await self._wait(patience)
        for queue in tuple(self._to_widen):
            await within(self._timeout, self._widen(queue), detail="RabbitMQ does not deliver")
        if self._inbox and len(self._inbox) < most and not self._inbox[0].suspected:
            await asyncio.sleep(linger)
        if self._broken:
            raise Unavailable("the deliveries from RabbitMQ broke off")
        return [] if self._ended else self._next(most)

    def _next(self, most: int) -> Sequence[ReceivedMessage]:
        taken: list[ReceivedMessage] = []
        size = 0
        while self._inbox and len(taken) < most and size < _LARGEST_BATCH_BYTES:
            alone = self._inbox[0].suspected
            if alone and taken:
                break
            taken.append(self._inbox.popleft())
            size += len(taken[-1].delivery.body)
            if alone:
                break
        return taken

    async def _wait(self, seconds: float) -> None:
        self._news.clear()
        if self._ended or self._broken:
            return
        await wait(seconds, unless=self._news)

    async def _widen(self, queue: str) -> None:
        self._to_widen.discard(queue)
        self._narrow.discard(queue)
        tag = self._tags[queue]
        await self._channel.basic_qos(prefetch_count=self._prefetch)
        self._tags[queue] = await self._consume(queue)
        await self._channel.basic_cancel(tag)

    async def acknowledge(self, arrivals: Sequence[ReceivedMessage]) -> None:
        """Acknowledge what `gather` returned last, and return when RabbitMQ knows it.

        Raises `Unavailable` when it may not: then all may come again.
        """
        await within(self._timeout, self._acknowledge(arrivals), detail="not acknowledged")

    async def _acknowledge(self, arrivals: Sequence[ReceivedMessage]) -> None:
        first, last = arrivals[0].tag, arrivals[-1].tag
        if first == self._settled + 1 and last == self._settled + len(arrivals):
            await self._channel.basic_ack(last, multiple=True, wait=False)
        else:
            # Something did not arrive that was delivered: it must not be acknowledged with them.
            for arrival in arrivals:
                await self._channel.basic_ack(arrival.tag, wait=False)
        self._settled = last
        await self._ask()

    async def require(self) -> None:
        """Return when RabbitMQ has said that the channel lives, now. Raises `Unavailable`."""
        await within(self._timeout, self._ask(), detail="the channel is gone")

    async def _ask(self) -> None:
        # Any question will do: RabbitMQ works off a channel's frames in their order.
        await self._channel.basic_qos(prefetch_count=self._prefetch)
        self._hear()

    def _hear(self) -> None:
        self._heard_at = asyncio.get_running_loop().time()

    @property
    def lives(self) -> bool:
        """Whether RabbitMQ cannot have taken the deliveries for lost, as far as we know."""
        silence = asyncio.get_running_loop().time() - self._heard_at
        return not self._broken and silence < HEARTBEAT_SECONDS

    def end(self) -> None:
        """Let `gather` return no more."""
        self._ended = True
        self._news.set()

    def _break(self) -> None:
        self._broken = True
        self._news.set()

    async def close(self) -> None:
        """Give back what was not acknowledged, and hang up."""
        await close(self._connection)
