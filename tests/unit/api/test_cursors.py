"""Does a cursor come back as it was given, and is anything else refused?"""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybook_api import cursors
from daybook_domain.errors import Invalid


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_cursor_comes_back_as_it_was_given(instant: datetime, run_id: UUID) -> None:
    assert cursors.decode(cursors.encode(instant, run_id)) == (instant, run_id)


@given(st.text(max_size=200))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="Link header"):
        cursors.decode(text)
