"""Which entity tags does a header name, however it is spelled?"""

import pytest

from daybook_api.etags import named


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
        # What is not written as RFC 9110 says names nothing, rather than some of it.
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
def test_the_tags_of_a_header(lines: list[str], expected: set[str]) -> None:
    assert named(lines) == expected
