"""Consumer of run messages, and their acknowledgement."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import structlog
from aio_pika.abc import (
    AbstractConnection,
    AbstractIncomingMessage,
    AbstractQueue,
    ConsumerTag,
)

from daybook_domain.errors import Unavailable
from daybook_platform import ack_policy
from daybook_platform.ack_policy import AckAction, Disposition
from daybook_platform.rabbitmq.connections import CLOSE_SECONDS, within
from daybook_platform.rabbitmq.topology import declare_run_queues

log = structlog.stdlib.get_logger(__name__)

Inbox = asyncio.Queue[AbstractIncomingMessage | None]
"""Deliveries as they arrive; None: the channel delivers no more."""


@dataclass
class RunConsumer:
    """One consumer on one channel."""

    queue: AbstractQueue
    inbox: Inbox
    tag: ConsumerTag

    @classmethod
    async def start(cls, connection: AbstractConnection, *, prefetch: int) -> "RunConsumer":
        """Consume into the inbox; it gets a None when the channel closes or the queue goes."""
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=prefetch)
        queue = await declare_run_queues(channel)
        inbox: Inbox = asyncio.Queue()
        channel.close_callbacks.add(lambda *_: inbox.put_nowait(None))
        underlay = await channel.get_underlay_channel()
        # The server cancels a consumer when its queue is deleted or its node leaves.
        underlay.on_consumer_cancel_callbacks.add(lambda _: inbox.put_nowait(None))
        return cls(queue=queue, inbox=inbox, tag=await queue.consume(inbox.put))

    async def stop(self) -> None:
        """Cancel the consumer and requeue the deliveries in the inbox."""
        with suppress(Unavailable):
            await within(CLOSE_SECONDS, self._stop(), detail="not stopped")

    async def _stop(self) -> None:
        await self.queue.cancel(self.tag)
        while not self.inbox.empty():
            if delivery := self.inbox.get_nowait():
                await delivery.nack(requeue=True)


async def settle(delivery: AbstractIncomingMessage, disposition: Disposition | None = None) -> None:
    """Acknowledge, dead-letter or requeue `delivery`, by default as its handler ended."""
    disposition = disposition or ack_policy.get_disposition()
    if disposition.action is AckAction.ACK:
        sending = delivery.ack()
    else:
        sending = delivery.reject(requeue=disposition.action is AckAction.REQUEUE)
    try:
        await within(CLOSE_SECONDS, sending, detail="the acknowledgement was not sent")
    except Unavailable:
        # Its channel is closed, so RabbitMQ redelivers it; the run's row has its state.
        log.info("acknowledgement not sent; the message will be redelivered")
        return
    ack_policy.log_disposition(disposition, delivery.body)
