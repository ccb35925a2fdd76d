"""Settings of the scheduler: defaults, and the rejection of invalid values."""

from datetime import timedelta
from functools import partial

import pytest

from daybook_platform.settings import load
from daybook_scheduler.settings import SchedulerSettings
from tests.support.settings import get_startup_error


@pytest.fixture(autouse=True)
def required_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the settings without a default."""
    monkeypatch.setenv("DAYBOOK_DATABASE_URL", "postgresql://u:p@h/d")
    monkeypatch.setenv("DAYBOOK_BROKER_URL", "amqp://u:p@h/")


def test_the_defaults_report_the_day_before_at_midnight_utc() -> None:
    settings = load(SchedulerSettings)

    assert (settings.daily_cron, settings.timezone) == ("0 0 * * *", "UTC")
    assert settings.reconcile_days == 3
    assert settings.dispatch_lease_seconds == timedelta(seconds=30)
    assert settings.queue_lease_seconds == timedelta(seconds=300)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DAYBOOK_DAILY_CRON", "", "expected five"),
        ("DAYBOOK_DAILY_CRON", "@reboot", "expected five"),
        ("DAYBOOK_DAILY_CRON", "61 * * * *", "minute: 61 is not 0-59 (position 1)"),
        ("DAYBOOK_RECONCILE_DAYS", "-1", "greater than or equal to 0"),
        ("DAYBOOK_RECONCILE_DAYS", "32", "less than or equal to 31"),
        ("DAYBOOK_RECONCILE_DAYS", "some", "valid integer"),
        ("DAYBOOK_DISPATCH_LEASE_SECONDS", "1", "from 10 to 3600"),
        ("DAYBOOK_QUEUE_LEASE_SECONDS", "nan", "expected a number of seconds"),
        ("DAYBOOK_TIMEZONE", "CEST", "an IANA time zone"),
        ("DAYBOOK_HEALTH_PORT", "70000", "less than or equal to 65535"),
    ],
)
def test_an_invalid_value_ends_the_process_with_the_name_and_the_expected_value(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    expected: str,
) -> None:
    monkeypatch.setenv(name, value)

    error = get_startup_error(partial(load, SchedulerSettings), capsys)

    assert error.startswith(f"{name}: ")
    assert expected in error


def test_a_daily_cron_that_always_falls_into_a_clock_change_is_rejected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAYBOOK_DAILY_CRON", "30 2 * MAR 7L")
    monkeypatch.setenv("DAYBOOK_TIMEZONE", "Europe/Berlin")
    assert load(SchedulerSettings).daily_cron == "30 2 * MAR 7L"

    monkeypatch.setenv("DAYBOOK_DAILY_CRON", "* 2 * MAR 7L")
    error = get_startup_error(partial(load, SchedulerSettings), capsys)
    assert error.startswith("DAYBOOK_DAILY_CRON: ")
    assert "never fires in Europe/Berlin" in error
