"""Unit tests of entity tags in headers."""

from datetime import date

import pytest

from daybook_api.etags import parse_etags, report_etag
from daybook_domain.reports.models import DayState
from daybook_domain.reports.rendering import Edition, Format


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['"3"'], {'"3"'}),
        (['"3", "4"'], {'"3"', '"4"'}),
        (['"3","4"', 'W/"5"'], {'"3"', '"4"', 'W/"5"'}),
        ([' ,"3" ,, \t"4", '], {'"3"', '"4"'}),
        (['"a,b", ""'], {'"a,b"', '""'}),
        (['"\xe9"'], {'"\xe9"'}),
        ([" * "], {"*"}),
        # A malformed header contains no tags, not even its valid part.
        ([], set()),
        ([""], set()),
        (["3"], set()),
        (['"3" "4"'], set()),
        (['"3", 4'], set()),
        (['"3", *'], set()),
        (['w/"3"'], set()),
        (['"3'], set()),
        (['"3 4"'], set()),
    ],
)
def test_the_entity_tags_of_a_header_are_parsed(lines: list[str], expected: set[str]) -> None:
    assert parse_etags(lines) == expected


def test_the_entity_tag_differs_for_each_edition_and_format() -> None:
    editions = [
        Edition(date(2026, 3, 1), DayState.ABSENT),
        Edition(date(2026, 3, 1), DayState.SEALED, revision=1, run="a"),
        Edition(date(2026, 3, 1), DayState.SEALED, revision=2, run="a"),
        Edition(date(2026, 3, 1), DayState.SEALED, revision=1, run="b"),
        Edition(date(2026, 3, 2), DayState.SEALED, revision=1, run="a"),
    ]
    tags = {report_etag(edition, format) for edition in editions for format in Format}
    assert len(tags) == len(editions) * len(Format)
