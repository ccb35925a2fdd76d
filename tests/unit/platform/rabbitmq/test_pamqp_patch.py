"""Decoding of unusual message properties."""

import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from pamqp.header import ContentHeader

from daybook_platform.rabbitmq import pamqp_patch

TIMESTAMP, MESSAGE_ID, HEADERS = 1 << 6, 1 << 7, 1 << 13


def decode(flag: int, value: bytes) -> Any:
    """Return the decoded properties of a message with only the property `flag`."""
    pamqp_patch.apply()
    header = ContentHeader()
    header.unmarshal(struct.pack(">HHQH", 60, 0, 2, flag) + value)
    return header.properties


def table(entry: bytes) -> bytes:
    return struct.pack(">I", len(entry)) + entry


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"\x03\xc3\xa9x", "éx"), (b"\x02\xff\xfe", "ÿþ"), (b"\x00", "")],
    ids=["UTF-8", "other bytes", "empty"],
)
def test_a_message_id_may_be_any_bytes(value: bytes, expected: str) -> None:
    assert decode(MESSAGE_ID, value).message_id == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1_700_000_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (2**63, "9223372036854775808"),
    ],
    ids=["seconds", "milliseconds", "out of range"],
)
def test_a_timestamp_may_be_any_number(number: int, expected: object) -> None:
    assert decode(TIMESTAMP, struct.pack(">Q", number)).timestamp == expected


def test_an_invalid_timestamp_header_does_not_affect_the_others() -> None:
    headers = table(b"\x01kT" + struct.pack(">Q", 2**63) + b"\x01nb\x07")

    assert decode(HEADERS, headers).headers == {"k": "9223372036854775808", "n": 7}


def test_headers_that_cannot_be_decoded_are_returned_as_bytes() -> None:
    entry = b"\x01\xffb\x07"

    assert decode(HEADERS, table(entry)).headers == {"unreadable": entry}


def test_headers_nested_too_deeply_are_decoded_without_an_error() -> None:
    nested = b""
    for _ in range(3000):
        nested = b"\x01kF" + table(nested)

    assert decode(HEADERS, table(nested)).headers
