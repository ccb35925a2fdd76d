"""Unit tests of list cursors."""

import base64
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daybook_api import cursors
from daybook_domain.errors import Invalid

OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_an_encoded_cursor_is_decoded_to_the_same_position(instant: datetime, run_id: UUID) -> None:
    assert cursors.decode(cursors.encode(instant, run_id)) == (instant, run_id)


@given(st.text(max_size=200))
def test_any_other_text_is_rejected(text: str) -> None:
    with pytest.raises(Invalid, match="Link header"):
        cursors.decode(text)


@given(st.datetimes(timezones=OFFSETS), st.uuids())
@example(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), UUID(int=0))
@example(datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=14))), UUID(int=0))
def test_a_cursor_outside_the_calendar_of_utc_is_rejected(instant: datetime, run_id: UUID) -> None:
    forged = base64.urlsafe_b64encode(f"{instant.isoformat()} {run_id}".encode()).decode()
    try:
        expected = instant.astimezone(UTC)
    except OverflowError:
        with pytest.raises(Invalid, match="Link header"):
            cursors.decode(forged.rstrip("="))
    else:
        decoded, _ = cursors.decode(forged.rstrip("="))
        assert (decoded, decoded.tzinfo) == (expected, UTC)
