"""What did RabbitMQ deliver, and what can be said of it without the database? Pure."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daybook_domain.errors import DaybookError
from daybook_domain.intake import deduplication, messages
from daybook_domain.intake.errors import DeliveryLimitReached, InvalidMessage, Malformed
from daybook_domain.intake.messages import AnyMessage, Queue

DEAD_LETTER_QUEUE = "daybook.intake.dead"
"""Where RabbitMQ puts messages that it has delivered in vain too often; also its exchange."""

_LONGEST_QUEUE = 255


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it came, and what it says or what is wrong with it."""

    queue: str
    """Where its producer sent it to."""
    body: bytes
    message_id: str | None
    headers: Mapping[str, Any]
    again: bool
    """It may have been delivered before."""
    digest: bytes
    content: AnyMessage | DaybookError


def parse_delivery(
    queue: str,
    body: bytes,
    *,
    message_id: str | None = None,
    headers: Mapping[str, Any] | None = None,
    again: bool = False,
) -> Delivery:
    """Return what came from `queue`, which may be `DEAD`."""
    content: AnyMessage | DaybookError | None = None
    if queue == DEAD_LETTER_QUEUE:
        queue, content = _death(headers or {})
        again = True
    if message_id is not None and "\0" in message_id:
        message_id = message_id.replace("\0", "\ufffd")
        content = Malformed("its message id contains a NUL character, which cannot be stored")
    return Delivery(
        queue=queue,
        body=body,
        message_id=message_id or None,
        headers=headers or {},
        again=again,
        digest=deduplication.digest(queue, body),
        content=content or parse_body(queue, body),
    )


def parse_body(queue: str, body: bytes) -> AnyMessage | DaybookError:
    """Return the message in `body`, or what is wrong with it."""
    try:
        known = Queue(queue)
    except ValueError:
        return InvalidMessage(f"queue {queue!r} is none of ours")
    return messages.parse_message(known, body)


def to_storable(value: Any) -> Any:
    """Return a value of an AMQP header in a form that JSON in Postgres can hold."""
    match value:
        case str():
            return value.replace("\0", "\ufffd")
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes() | bytearray():
            return to_storable(decode_body(bytes(value))[0])
        case Mapping():
            return {to_storable(str(key)): to_storable(item) for key, item in value.items()}
        case Sequence():
            return [to_storable(item) for item in value]
        case _:
            return to_storable(str(value))


def decode_body(body: bytes) -> tuple[str, str]:
    """Return `body` as text and how that is to be read: `utf-8`, or else `base64`."""
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"


def _death(headers: Mapping[str, Any]) -> tuple[str, DaybookError]:
    """Return from which queue a dead letter of RabbitMQ's comes, and why."""
    entries = headers.get("x-death")
    entry = entries[0] if isinstance(entries, Sequence) and entries else None
    if not isinstance(entry, Mapping):
        return DEAD_LETTER_QUEUE, DeliveryLimitReached(
            "it was sent to the queue of dead letters directly"
        )
    queue = str(entry.get("queue", DEAD_LETTER_QUEUE)).replace("\0", "\ufffd")[:_LONGEST_QUEUE]
    facts = {name: to_storable(entry.get(name)) for name in ("reason", "count", "time")}
    return queue, DeliveryLimitReached(
        "it was delivered too often, and each time its worker ended or lost its connection: "
        + json.dumps(facts)
    )
