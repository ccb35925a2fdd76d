"""Is the format chosen that the caller likes best?"""

import pytest

from daybook_api.errors import NotAcceptable
from daybook_api.reports import content_negotiation
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
def test_the_format_liked_best_is_chosen(accept: str | None, expected: Format) -> None:
    assert content_negotiation.choose(asked=None, accept=accept) is expected


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "text/csv;q=many", ","])
def test_what_cannot_be_had_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/x-ndjson"):
        content_negotiation.choose(asked=None, accept=accept)


def test_format_decides_instead_of_accept() -> None:
    assert content_negotiation.choose(asked="csv", accept="text/html") is Format.CSV
    with pytest.raises(NotAcceptable, match="no format 'parquet'"):
        content_negotiation.choose(asked="parquet", accept="*/*")
