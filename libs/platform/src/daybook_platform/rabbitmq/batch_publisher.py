"""How do messages that are sent in the same moment travel to RabbitMQ together?

aiormq writes each message by itself and waits for the socket before the next, so RabbitMQ wakes up
for each. The frames here are those that it would write, only in one go, and the confirmations are
its own. What that saves, and what of aiormq it stands on: docs/adr/0008.
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
    """A message that is to outlive its server."""

    id: str
    """By it RabbitMQ tells which message it gives back, when no queue takes it."""
    headers: Mapping[str, Any]
    body: bytes


async def publish(
    channel: Channel, messages: Sequence[OutgoingMessage], *, exchange: str, routing_key: str
) -> Sequence[Confirmation]:
    """Write `messages`, mandatory, and return the confirmations to come, in the same order.

    Each raises what aiormq raises: the message was returned or refused, or the channel is dead.
    """
    publish = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
    frames = [
        frame
        for message in messages
        for frame in (publish, *_content(message, largest=channel.max_content_size))
    ]
    async with channel.lock:
        await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))
        # Numbered as RabbitMQ will count them: before anything else can run, let alone be written.
        return [_expect(channel, message) for message in messages]


def _content(message: OutgoingMessage, *, largest: int) -> Iterator[ContentHeader | ContentBody]:
    properties = spec.Basic.Properties(
        message_id=message.id, headers=dict(message.headers), delivery_mode=PERSISTENT
    )
    yield ContentHeader(properties=properties, body_size=len(message.body))
    for start in range(0, len(message.body), largest):
        yield ContentBody(message.body[start : start + largest])


def _expect(channel: Channel, message: OutgoingMessage) -> Confirmation:
    channel.delivery_tag += 1
    confirmation: Confirmation = channel.create_future()
    channel.confirmations[channel.delivery_tag] = confirmation
    channel.message_id_delivery_tag[message.id] = channel.delivery_tag
    confirmation.add_done_callback(partial(_forget, channel, message.id))
    return confirmation


def _forget(channel: Channel, message_id: str, _: Confirmation) -> None:
    channel.message_id_delivery_tag.pop(message_id, None)
