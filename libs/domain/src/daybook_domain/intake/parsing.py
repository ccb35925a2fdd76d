"""Parsing of deliveries and message bodies. Pure."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from daybook_domain.errors import DaybookError
from daybook_domain.intake import deduplication, messages
from daybook_domain.intake.errors import DeliveryLimitReached, InvalidMessage, Malformed
from daybook_domain.intake.messages import MAX_BODY_BYTES, MODELS, AnyMessage, Queue

DEAD_LETTER_QUEUE = "daybook.intake.dead"
"""Queue of messages that exceeded the delivery limit; also the name of its exchange."""

MAX_HEADER_DEPTH = 20
"""Nesting depth at which stored headers end; deeper values cannot be serialized everywhere."""

_MAX_QUEUE_LENGTH = 255
_MAX_REPORTED_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as delivered, with its parsed content or the error."""

    queue: str
    """The queue to which it was published."""
    body: bytes
    message_id: str | None
    headers: Mapping[str, Any]
    redelivered: bool
    """Whether it may have been delivered before."""
    digest: bytes
    content: AnyMessage | DaybookError
    unknown_fields: Sequence[str] = ()
    """Paths of fields that have no effect because this release does not know them."""


def parse_delivery(
    queue: str,
    body: bytes,
    *,
    message_id: str | None = None,
    headers: Mapping[str, Any] | None = None,
    redelivered: bool = False,
) -> Delivery:
    """Return the delivery of a message from `queue`, which may be `DEAD_LETTER_QUEUE`."""
    content: AnyMessage | DaybookError | None = None
    if queue == DEAD_LETTER_QUEUE:
        queue, content = _parse_death(headers or {})
        redelivered = True
    if message_id is not None and "\0" in message_id:
        message_id = message_id.replace("\0", "\ufffd")
        content = Malformed("the message id contains a NUL character, which cannot be stored")
    content = content or parse_body(queue, body)
    return Delivery(
        queue=queue,
        body=body,
        message_id=message_id or None,
        headers=headers or {},
        redelivered=redelivered,
        digest=deduplication.digest(queue, body),
        content=content,
        unknown_fields=(
            () if isinstance(content, DaybookError) else messages.list_unknown_fields(content)
        ),
    )


def parse_body(queue: str, body: bytes) -> AnyMessage | DaybookError:
    """Return the message in `body`, or the error."""
    try:
        known = Queue(queue)
    except ValueError:
        return InvalidMessage(f"queue {queue!r} is not an intake queue")
    return parse_message(known, body)


def parse_message(queue: Queue, body: bytes) -> AnyMessage | DaybookError:
    """Return the message in `body`, or the error: `Malformed` or `InvalidMessage`."""
    if len(body) > MAX_BODY_BYTES:
        return Malformed(f"has {len(body):,} bytes; expected at most {MAX_BODY_BYTES:,}")
    try:
        message = MODELS[queue].model_validate_json(body)
        # A key with two values is ambiguous, and pydantic accepts it.
        json.loads(body, object_pairs_hook=_reject_repeated_keys)
    except ValidationError as error:
        return _to_domain_error(error)
    except Malformed as error:
        return error
    return message


def to_storable(value: Any, *, depth: int = 0) -> Any:
    """Return the value of an AMQP header in a form that can be stored as JSONB.

    Values at `MAX_HEADER_DEPTH` are replaced by a text.
    """
    match value:
        case str():
            return value.replace("\0", "\ufffd")
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes() | bytearray():
            return to_storable(decode_body(bytes(value))[0])
        case Mapping() | Sequence() if depth == MAX_HEADER_DEPTH:
            return "nested too deeply"
        case Mapping():
            return {
                to_storable(str(key)): to_storable(item, depth=depth + 1)
                for key, item in value.items()
            }
        case Sequence():
            return [to_storable(item, depth=depth + 1) for item in value]
        case _:
            return to_storable(str(value))


def decode_body(body: bytes) -> tuple[str, str]:
    """Return `body` as text, and the encoding of the text: `utf-8`, or else `base64`."""
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"


def _parse_death(headers: Mapping[str, Any]) -> tuple[str, DaybookError]:
    """Return the original queue of a message that RabbitMQ dead-lettered, and the reason."""
    entries = headers.get("x-death")
    entry = entries[0] if isinstance(entries, Sequence) and entries else None
    if not isinstance(entry, Mapping):
        return DEAD_LETTER_QUEUE, DeliveryLimitReached(
            f"the message was published to {DEAD_LETTER_QUEUE} directly"
        )
    name = entry.get("queue")
    queue = name if isinstance(name, str) else DEAD_LETTER_QUEUE
    queue = queue.replace("\0", "\ufffd")[:_MAX_QUEUE_LENGTH]
    facts = {name: to_storable(entry.get(name)) for name in ("reason", "count", "time")}
    return queue, DeliveryLimitReached(
        "the delivery limit was reached: at each delivery the worker stopped or lost its"
        " connection: " + json.dumps(facts)
    )


def _reject_repeated_keys(pairs: list[tuple[str, Any]]) -> None:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise Malformed(f"has the key {repeated!r} more than once")


def _to_domain_error(error: ValidationError) -> DaybookError:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        return Malformed(problems[0]["msg"])
    shown = [
        f"{'/'.join(map(str, problem['loc'])) or 'the message'}: "
        + problem["msg"].removeprefix("Value error, ")
        for problem in problems[:_MAX_REPORTED_PROBLEMS]
    ]
    if more := len(problems) - len(shown):
        shown.append(f"and {more} more")
    return InvalidMessage("; ".join(shown))
