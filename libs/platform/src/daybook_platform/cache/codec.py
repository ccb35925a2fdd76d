"""What is written under a key, and how is it told from garbage?

A key holds one of three things, told apart by the first byte:

    =EPOCH SHAPE SUM BODY   a copy of what the database holds
    ?TOKEN                  a reader is fetching, and may put its copy here
    !TOKEN                  a transaction is committing: no copies for now
"""

import zlib

ENTRY, FETCHING, COMMITTING = b"=", b"?", b"!"


def encode(body: bytes, *, key: str, epoch: bytes, shape: bytes) -> bytes:
    """Return `body` as it is kept, of use under this key and in this epoch and shape alone."""
    return b"%s%s %s %08x %s" % (ENTRY, epoch, shape, _sum(key, body), body)


def decode(value: bytes | None, *, key: str, epoch: bytes | None, shape: bytes) -> bytes | None:
    """Return the body in `value`; None when it holds none, or none for this reader."""
    if value is None or epoch is None:
        return None
    head = b"%s%s %s " % (ENTRY, epoch, shape)
    if not value.startswith(head):
        return None
    claimed, _, body = value[len(head) :].partition(b" ")
    return body if claimed == b"%08x" % _sum(key, body) else None


def _sum(key: str, body: bytes) -> int:
    # With the key: a copy that somebody moved is not taken for another's.
    return zlib.crc32(body, zlib.crc32(key.encode()))
