"""Patch of pamqp that tolerates any message properties.

AMQP 0-9-1 does not define the encoding of strings and has 64 bits for a timestamp. pamqp (4.0)
raises on text that is not UTF-8 and on years after 9999, aiormq then closes the connection, and
RabbitMQ redelivers the message to the next consumer: one such property would stop all consumers
permanently. Remove this once pamqp returns such values unparsed.
"""

import struct
from datetime import UTC, datetime
from typing import Any

from pamqp import decode

_MAX_SECONDS = 0xFFFFFFFF
"""The largest timestamp in seconds; larger ones are milliseconds, as in pamqp."""


def apply() -> None:
    """Make pamqp decode whatever a producer may send. Idempotent."""
    decode.METHODS.update({"shortstr": _text, "timestamp": _timestamp, "table": _table})
    decode.TABLE_MAPPING.update({b"T": _timestamp, b"F": _table})


def _text(value: bytes) -> tuple[int, str]:
    end = value[0] + 1
    try:
        return end, value[1:end].decode()
    except UnicodeDecodeError:
        # Latin-1 maps every byte to one character, so different ids stay different.
        return end, value[1:end].decode("latin-1")


def _timestamp(value: bytes) -> tuple[int, Any]:
    (number,) = struct.unpack_from(">Q", value)
    try:
        seconds = number / 1000 if number > _MAX_SECONDS else number
        return 8, datetime.fromtimestamp(seconds, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return 8, str(number)


def _table(value: bytes) -> tuple[int, Any]:
    try:
        return decode.field_table(value)
    except (ValueError, RecursionError):
        (length,) = struct.unpack_from(">I", value)
        return length + 4, {"unreadable": value[4 : length + 4]}
