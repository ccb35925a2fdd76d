"""Does a worker refuse to start on settings that make no sense, and say which?"""

from datetime import timedelta
from functools import partial

import pytest

from daybook_platform.settings import load
from daybook_worker.main import main
from daybook_worker.settings import WorkerSettings
from tests.support.settings import refusal


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYBOOK_DATABASE_URL", "postgresql://daybook@localhost/daybook")
    monkeypatch.setenv("DAYBOOK_BROKER_URL", "amqp://localhost/")


def test_the_defaults_are_small() -> None:
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
def test_a_wrong_value_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    assert refusal(partial(load, WorkerSettings), capsys).startswith(f"{name}: ")


def test_a_missing_value_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DAYBOOK_BROKER_URL")

    said = refusal(partial(load, WorkerSettings), capsys)

    assert said == "DAYBOOK_BROKER_URL: is not set, and has no default\n"


def test_an_unknown_role_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "choose from" in refusal(partial(main, ["paint"]), capsys)


def test_nothing_can_be_taken_in_without_rabbitmq(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYBOOK_BROKER_URL", "redis://localhost/0")

    said = refusal(partial(main, ["intake"]), capsys)

    assert said.startswith("DAYBOOK_BROKER_URL: expected amqp://")
