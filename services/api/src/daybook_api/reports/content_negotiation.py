"""In which format does a caller want a report?"""

from collections.abc import Iterator

from daybook_api.errors import NotAcceptable
from daybook_domain.reports.rendering import Format

_BY_MEDIA_TYPE = {format.media_type: format for format in Format}


def choose(*, asked: str | None, accept: str | None) -> Format:
    """Return the format that `format=` names, or else the one that `Accept` likes best.

    Raises `NotAcceptable`. Source: RFC 9110 §12.5.1; between equals the first of `Format` wins.
    """
    if asked is not None:
        try:
            return Format(asked)
        except ValueError:
            raise NotAcceptable(f"There is no format {asked[:40]!r}; {_offer()}") from None
    if accept is None or accept.strip() in {"", "*/*"}:
        return Format.JSON
    liked = list(_ranges(accept))
    best = max(Format, key=lambda format: _quality(format, liked))
    if _quality(best, liked) <= 0:
        raise NotAcceptable(f"None of what Accept names is to be had; {_offer()}")
    return best


def _offer() -> str:
    return "there is " + ", ".join(f"{format} ({format.media_type})" for format in Format) + "."


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.split(","):
        name, *parameters = (piece.strip() for piece in part.lower().split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        yield name, quality


def _quality(format: Format, ranges: list[tuple[str, float]]) -> float:
    """Return how much `format` is liked: the most specific range that names it decides."""
    kind = format.media_type.partition("/")[0]
    for name in (format.media_type, f"{kind}/*", "*/*"):
        found = [quality for range_, quality in ranges if range_ == name]
        if found:
            return max(found)
    return 0.0
