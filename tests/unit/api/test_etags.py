"""Unit tests of entity tags in headers."""

import pytest

from daybook_api.etags import parse_etags


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
