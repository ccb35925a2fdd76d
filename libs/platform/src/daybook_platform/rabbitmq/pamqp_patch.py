"""What may a message's properties hold that pamqp cannot read?

AMQP 0-9-1 leaves the encoding of its strings open and has 64 bits for a timestamp. pamqp (4.0)
raises on text that is not UTF-8 and on years after 9999, aiormq then ends the connection, and
RabbitMQ delivers the message to the next consumer: one odd property would keep all of them from
working, for ever. This can go when pamqp hands such values out as they are.
"""

import struct
from datetime import UTC, datetime
from typing import Any

from pamqp import decode

_SECONDS_END = 0xFFFFFFFF
"""What is larger counts milliseconds, in pamqp's view and in ours."""


def apply() -> None:
    """Have pamqp read whatever a producer may send; doing so again changes nothing."""
    decode.METHODS.update({"shortstr": _text, "timestamp": _instant, "table": _table})
    decode.TABLE_MAPPING.update({b"T": _instant, b"F": _table})


def _text(value: bytes) -> tuple[int, str]:
    end = value[0] + 1
    try:
        return end, value[1:end].decode()
    except UnicodeDecodeError:
        # Every byte is a character of Latin-1, so different ids stay different.
        return end, value[1:end].decode("latin-1")


def _instant(value: bytes) -> tuple[int, Any]:
    (number,) = struct.unpack_from(">Q", value)
    try:
        seconds = number / 1000 if number > _SECONDS_END else number
        return 8, datetime.fromtimestamp(seconds, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return 8, str(number)


def _table(value: bytes) -> tuple[int, Any]:
    try:
        return decode.field_table(value)
    except (ValueError, RecursionError):
        (length,) = struct.unpack_from(">I", value)
        return length + 4, {"unreadable": value[4 : length + 4]}
