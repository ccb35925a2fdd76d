"""Waits of tests that depend on the current day."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.support.midnight import compute_wait


@pytest.mark.parametrize(
    ("clock", "seconds"),
    [("23:59:29", 0), ("23:59:30", 0), ("23:59:31", 30), ("23:59:59", 2), ("00:00:00", 0)],
)
def test_a_test_waits_only_for_a_midnight_that_is_near(clock: str, seconds: int) -> None:
    now = datetime.fromisoformat(f"2026-03-01T{clock}").replace(tzinfo=UTC)

    assert compute_wait(now, margin=timedelta(seconds=30)) == timedelta(seconds=seconds)
