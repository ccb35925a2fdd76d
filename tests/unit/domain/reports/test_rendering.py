"""Documents assembled from chunks of rows, editions and entity tags."""

import json
from datetime import date
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybook_domain.reports import rendering
from daybook_domain.reports.models import DayState
from daybook_domain.reports.rendering import Edition, Format, Framing

DAY = date(2026, 3, 1)


@given(st.integers(0, 6).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(1, n or 1)))))
def test_a_json_array_is_valid_for_any_division_into_chunks(case: tuple[int, set[int]]) -> None:
    count, cuts = case
    rows = [b',{"id":%d}\n' % number for number in range(count)]
    framing = Framing(Format.JSON)
    document = b""
    for start, end in pairwise(sorted({0, count} | {cut for cut in cuts if cut < count})):
        document += b"".join(framing.rows(b"".join(rows[start:end])))
    document += framing.end()
    assert json.loads(document) == [{"id": number} for number in range(count)]


@pytest.mark.parametrize(
    ("format", "empty"),
    [
        (Format.JSON, b"[]\n"),
        (Format.NDJSON, b""),
        (Format.CSV, b"id,report_at,order_id,count_product,created_at\n"),
    ],
)
def test_a_day_without_rows_is_a_valid_document(format: Format, empty: bytes) -> None:
    assert Framing(format).end() == empty


def test_the_first_line_is_parsed_as_the_edition() -> None:
    line = '{"revision" : 2, "sealed" : false, "run" : null, "digest" : "ab"}'
    assert rendering.parse_edition(DAY, line) == Edition(
        DAY, DayState.PROVISIONAL, revision=2, digest="ab"
    )
    assert rendering.parse_edition(DAY, b"null") == Edition(DAY, DayState.ABSENT)
