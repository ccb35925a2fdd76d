"""Publishing of several messages in one write.

aiormq writes each message separately and waits for the socket before the next, so RabbitMQ wakes up
for each. Here the same frames are written in one chunk, and aiormq's own confirmations are used.
docs/adr/0008 has the measurements, and the attributes of aiormq on which this depends.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiormq import Channel, spec
from aiormq.abc import ChannelFrame, ConfirmationFrameType
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

Confirmation = asyncio.Future[ConfirmationFrameType]

PERSISTENT = 2


@dataclass(frozen=True)
class OutgoingMessage:
    """A persistent message."""

    id: str
    """The message id, by which aiormq matches a message that RabbitMQ returned as unroutable."""
    headers: Mapping[str, Any]
    body: bytes


async def publish(
    channel: Channel, messages: Sequence[OutgoingMessage], *, exchange: str, routing_key: str
) -> Sequence[Confirmation]:
    """Publish `messages` as mandatory; return their pending confirmations in the same order.

    A confirmation raises aiormq's error if its message was returned or rejected, or the channel
    closed.
    """
    publish = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
    frames = [
        frame
        for message in messages
        for frame in (publish, *_content(message, largest=channel.max_content_size))
    ]
    async with channel.lock:
        await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))
        # Numbered as RabbitMQ counts them: without an await between the write and this.
        return [_register(channel, message) for message in messages]


def _content(message: OutgoingMessage, *, largest: int) -> Iterator[ContentHeader | ContentBody]:
    properties = spec.Basic.Properties(
        message_id=message.id, headers=dict(message.headers), delivery_mode=PERSISTENT
    )
    yield ContentHeader(properties=properties, body_size=len(message.body))
    for start in range(0, len(message.body), largest):
        yield ContentBody(message.body[start : start + largest])


def _register(channel: Channel, message: OutgoingMessage) -> Confirmation:
    channel.delivery_tag += 1
    confirmation: Confirmation = channel.create_future()
    channel.confirmations[channel.delivery_tag] = confirmation
    channel.message_id_delivery_tag[message.id] = channel.delivery_tag
    confirmation.add_done_callback(partial(_discard_id, channel, message.id))
    return confirmation


def _discard_id(channel: Channel, message_id: str, _: Confirmation) -> None:
    channel.message_id_delivery_tag.pop(message_id, None)
