"""What the scheduler is told, and what it refuses to hear."""

from datetime import timedelta
from functools import partial

import pytest

from daybook_platform.settings import load
from daybook_scheduler.settings import SchedulerSettings
from tests.support.settings import refusal


@pytest.fixture(autouse=True)
def urls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what has no default."""
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
def test_a_wrong_value_ends_the_process_with_its_name_and_what_was_expected(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    expected: str,
) -> None:
    monkeypatch.setenv(name, value)

    said = refusal(partial(load, SchedulerSettings), capsys)

    assert said.startswith(f"{name}: ")
    assert expected in said


def test_a_daily_report_that_the_clocks_always_jump_over_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAYBOOK_DAILY_CRON", "30 2 * MAR 7L")
    monkeypatch.setenv("DAYBOOK_TIMEZONE", "Europe/Berlin")
    assert load(SchedulerSettings).daily_cron == "30 2 * MAR 7L"

    monkeypatch.setenv("DAYBOOK_DAILY_CRON", "* 2 * MAR 7L")
    said = refusal(partial(load, SchedulerSettings), capsys)
    assert said.startswith("DAYBOOK_DAILY_CRON: ")
    assert "never comes true in Europe/Berlin" in said
