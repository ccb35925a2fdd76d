"""Unit tests of list cursors."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybook_api import cursors
from daybook_domain.errors import Invalid


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_an_encoded_cursor_is_decoded_to_the_same_position(instant: datetime, run_id: UUID) -> None:
    assert cursors.decode(cursors.encode(instant, run_id)) == (instant, run_id)


@given(st.text(max_size=200))
def test_any_other_text_is_rejected(text: str) -> None:
    with pytest.raises(Invalid, match="Link header"):
        cursors.decode(text)
