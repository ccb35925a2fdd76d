"""Can every property be read that a producer may send?"""

import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from pamqp.header import ContentHeader

from daybook_platform.rabbitmq import pamqp_patch

TIMESTAMP, MESSAGE_ID, HEADERS = 1 << 6, 1 << 7, 1 << 13


def read(flag: int, value: bytes) -> Any:
    """Return the properties of a message that has just one, of these bytes."""
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
    assert read(MESSAGE_ID, value).message_id == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1_700_000_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (2**63, "9223372036854775808"),
    ],
    ids=["seconds", "milliseconds", "no time at all"],
)
def test_a_timestamp_may_be_any_number(number: int, expected: object) -> None:
    assert read(TIMESTAMP, struct.pack(">Q", number)).timestamp == expected


def test_a_good_header_is_read_beside_a_timestamp_that_is_none() -> None:
    headers = table(b"\x01kT" + struct.pack(">Q", 2**63) + b"\x01nb\x07")

    assert read(HEADERS, headers).headers == {"k": "9223372036854775808", "n": 7}


def test_headers_that_cannot_be_read_are_kept_as_they_are() -> None:
    entry = b"\x01\xffb\x07"

    assert read(HEADERS, table(entry)).headers == {"unreadable": entry}


def test_headers_nested_without_end_are_kept_as_they_are() -> None:
    nested = b""
    for _ in range(3000):
        nested = b"\x01kF" + table(nested)

    assert read(HEADERS, table(nested)).headers
