"""Entity tags in `If-Match` and `If-None-Match` headers (RFC 9110 section 13.1)."""

import re
from collections.abc import Iterable

ANY = "*"

_TAG = r'(?:W/)?"[\x21\x23-\x7E\x80-\xFF]*"'
_LIST = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")


def parse_etags(lines: Iterable[str]) -> frozenset[str]:
    """Return the entity tags in all lines of one header, unparsed, or `*` alone.

    Tags may contain commas, and a header may have several lines. A malformed header counts as
    empty: then no precondition matches, and no response is shortened to 304.
    """
    value = ",".join(lines)
    if value.strip(" \t") == ANY:
        return frozenset({ANY})
    return frozenset(re.findall(_TAG, value)) if _LIST.fullmatch(value) else frozenset()
