"""Unit tests of the choice of a report format."""

import pytest

from daybook_api.errors import NotAcceptable
from daybook_api.reports.content_negotiation import negotiate_format
from daybook_domain.reports.rendering import Format


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, Format.JSON),
        ("", Format.JSON),
        ("*/*", Format.JSON),
        ("application/json", Format.JSON),
        ("text/csv", Format.CSV),
        ("TEXT/CSV; charset=utf-8", Format.CSV),
        ("text/*", Format.CSV),
        ("application/*", Format.JSON),
        ("application/x-ndjson, application/json;q=0.9", Format.NDJSON),
        ("application/json;q=0.2, text/csv;q=0.3, */*;q=0.1", Format.CSV),
        ("application/json;q=0, */*", Format.NDJSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format.JSON),
    ],
)
def test_the_format_with_the_highest_quality_is_chosen(
    accept: str | None, expected: Format
) -> None:
    assert negotiate_format(requested=None, accept=accept) is expected


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "text/csv;q=many", ","])
def test_an_accept_header_without_a_supported_media_type_is_rejected(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/x-ndjson"):
        negotiate_format(requested=None, accept=accept)


def test_the_format_parameter_takes_precedence_over_accept() -> None:
    assert negotiate_format(requested="csv", accept="text/html") is Format.CSV
    with pytest.raises(NotAcceptable, match="Unknown format 'parquet'"):
        negotiate_format(requested="parquet", accept="*/*")
