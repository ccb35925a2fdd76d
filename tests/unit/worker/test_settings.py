"""Settings of the worker: defaults, and the rejection of invalid values."""

from datetime import timedelta
from functools import partial

import pytest

from daybook_platform.settings import load
from daybook_worker.main import main
from daybook_worker.settings import WorkerSettings
from tests.support.settings import get_startup_error


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYBOOK_DATABASE_URL", "postgresql://daybook@localhost/daybook")
    monkeypatch.setenv("DAYBOOK_BROKER_URL", "amqp://localhost/")


def test_the_defaults_suit_a_small_worker() -> None:
    settings = load(WorkerSettings)

    assert settings.concurrency == 2
    assert settings.lease_seconds == timedelta(seconds=60)
    assert settings.drain_seconds == timedelta(seconds=20)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DAYBOOK_CONCURRENCY", "0"),
        ("DAYBOOK_CONCURRENCY", "two"),
        ("DAYBOOK_LEASE_SECONDS", "0"),
        ("DAYBOOK_LEASE_SECONDS", "soon"),
        ("DAYBOOK_DRAIN_SECONDS", "-1"),
        ("DAYBOOK_TIMEZONE", "Mars/Olympus"),
        ("DAYBOOK_BROKER_URL", "http://example.org"),
        ("DAYBOOK_HEALTH_PORT", "65536"),
    ],
)
def test_an_invalid_value_is_rejected_with_the_name_of_the_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    assert get_startup_error(partial(load, WorkerSettings), capsys).startswith(f"{name}: ")


def test_a_missing_value_is_rejected_with_the_name_of_the_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DAYBOOK_BROKER_URL")

    error = get_startup_error(partial(load, WorkerSettings), capsys)

    assert error == "DAYBOOK_BROKER_URL: is not set, and has no default\n"


def test_an_unknown_role_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    assert "choose from" in get_startup_error(partial(main, ["paint"]), capsys)


def test_the_intake_is_rejected_without_rabbitmq(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYBOOK_BROKER_URL", "redis://localhost/0")

    error = get_startup_error(partial(main, ["intake"]), capsys)

    assert error.startswith("DAYBOOK_BROKER_URL: expected amqp://")
