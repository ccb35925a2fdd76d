"""Encoding of cache values, with checks against stale, foreign and corrupt ones.

A key has one of three kinds of values, distinguished by the first byte:

    =EPOCH SHAPE CHECKSUM BODY   an entry: the entity as read from the database
    ?TOKEN                       a reader is fetching, and may store its entry here
    !TOKEN                       a transaction is committing: no entry may be stored
"""

import zlib

ENTRY, FETCHING, COMMITTING = b"=", b"?", b"!"


def encode(body: bytes, *, key: str, epoch: bytes, shape: bytes) -> bytes:
    """Return the value for `body`, valid only under this key, epoch and shape."""
    return b"%s%s %s %08x %s" % (ENTRY, epoch, shape, _checksum(key, body), body)


def decode(value: bytes | None, *, key: str, epoch: bytes | None, shape: bytes) -> bytes | None:
    """Return the body in `value`; None when it is not a valid entry for these arguments."""
    if value is None or epoch is None:
        return None
    head = b"%s%s %s " % (ENTRY, epoch, shape)
    if not value.startswith(head):
        return None
    checksum, _, body = value[len(head) :].partition(b" ")
    return body if checksum == b"%08x" % _checksum(key, body) else None


def _checksum(key: str, body: bytes) -> int:
    # Includes the key, so that an entry that was renamed to another key is invalid there.
    return zlib.crc32(body, zlib.crc32(key.encode()))
