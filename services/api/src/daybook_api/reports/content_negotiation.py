"""Choice of the report format from `format=` and `Accept` (RFC 9110 section 12.5.1)."""

from collections.abc import Iterator

from daybook_api.errors import NotAcceptable
from daybook_domain.reports.rendering import Format


def negotiate_format(*, requested: str | None, accept: str | None) -> Format:
    """Return the requested format, or else the one with the highest quality in `accept`.

    Between equal qualities the first member of `Format` wins. Raises `NotAcceptable`.
    """
    if requested is not None:
        try:
            return Format(requested)
        except ValueError:
            raise NotAcceptable(
                f"Unknown format {requested[:40]!r}; {_supported_formats()}"
            ) from None
    if accept is None or accept.strip() in {"", "*/*"}:
        return Format.JSON
    ranges = list(_media_ranges(accept))
    best = max(Format, key=lambda format: _quality(format, ranges))
    if _quality(best, ranges) <= 0:
        raise NotAcceptable(f"No acceptable media type in Accept; {_supported_formats()}")
    return best


def _supported_formats() -> str:
    return "expected " + ", ".join(f"{format} ({format.media_type})" for format in Format) + "."


def _media_ranges(accept: str) -> Iterator[tuple[str, float]]:
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
    """Return the quality of `format`, which is that of the most specific range that matches."""
    kind = format.media_type.partition("/")[0]
    for name in (format.media_type, f"{kind}/*", "*/*"):
        matching = [quality for range_, quality in ranges if range_ == name]
        if matching:
            return max(matching)
    return 0.0
