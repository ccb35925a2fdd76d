"""Codecs of dates, instants and intervals that read every value that Postgres can store.

Postgres stores years from 4713 BC to 294276, `infinity`, and intervals of 178 million years. For a
value that Python cannot represent, asyncpg raises `OverflowError` or `ValueError` while it reads
the rows: one such row would fail the whole list, and with it all other rows. These codecs return
the nearest value that Python has instead, so that code meets it as the value of one row.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = _EPOCH.toordinal()
_FIRST_INSTANT = datetime.min.replace(tzinfo=UTC)
_LAST_INSTANT = datetime.max.replace(tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MONTHS, _DAYS_PER_MONTH, _DAYS_PER_YEAR = 12, 30, 365


async def register(connection: asyncpg.Connection) -> None:
    """Use these codecs on `connection`."""
    for name, (encode, decode) in _CODECS.items():
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=encode, decoder=decode, format="tuple"
        )


def encode_instant(value: datetime) -> tuple[int]:
    """Return microseconds since 2000, for an aware instant."""
    return ((value - _EPOCH) // _MICROSECOND,)


def decode_instant(value: tuple[int]) -> datetime:
    """Return the instant, or the nearest one of the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(microseconds=value[0])
    except OverflowError:
        return _LAST_INSTANT if value[0] > 0 else _FIRST_INSTANT


def encode_date(value: date) -> tuple[int]:
    """Return days since 2000."""
    return (value.toordinal() - _EPOCH_ORDINAL,)


def decode_date(value: tuple[int]) -> date:
    """Return the date, or the nearest one of the years 1 to 9999."""
    try:
        return date.fromordinal(value[0] + _EPOCH_ORDINAL)
    except (OverflowError, ValueError):
        return date.max if value[0] > 0 else date.min


def encode_interval(value: timedelta) -> tuple[int, int, int]:
    """Return months, days and microseconds."""
    return 0, value.days, value.seconds * 1_000_000 + value.microseconds


def decode_interval(value: tuple[int, int, int]) -> timedelta:
    """Return the interval, or the longest one; months have 30 days, years 365, as in asyncpg."""
    months, days, microseconds = value
    sign = -1 if months < 0 else 1
    years, rest = divmod(abs(months), _MONTHS)
    days += sign * (years * _DAYS_PER_YEAR + rest * _DAYS_PER_MONTH)
    try:
        return timedelta(days=days, microseconds=microseconds)
    except OverflowError:
        return timedelta.max if days > 0 else timedelta.min


_CODECS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "timestamptz": (encode_instant, decode_instant),
    "date": (encode_date, decode_date),
    "interval": (encode_interval, decode_interval),
}
