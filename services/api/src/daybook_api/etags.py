"""Which entity tags does a header name? `If-Match` and `If-None-Match` (RFC 9110 §13.1)."""

import re
from collections.abc import Iterable

ANY = "*"

_TAG = r'(?:W/)?"[\x21\x23-\x7E\x80-\xFF]*"'
_LIST = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")


def named(lines: Iterable[str]) -> frozenset[str]:
    """Return the tags that the lines of one header name, as they are written, or `*` alone.

    Tags may contain commas, and a header may come in several lines. One that is not written as
    the RFC says names nothing: neither is a change made for it, nor an answer left out.
    """
    value = ",".join(lines)
    if value.strip(" \t") == ANY:
        return frozenset({ANY})
    return frozenset(re.findall(_TAG, value)) if _LIST.fullmatch(value) else frozenset()
