"""Unit tests of the settings of the API."""

from datetime import timedelta

import pytest

from daybook_api.main import create_app
from daybook_api.settings import ApiSettings
from daybook_platform.settings import load
from tests.support.settings import get_startup_error

URL = "postgresql://u@localhost/d"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.chdir(str(tmp_path))  # No .env there.
    for name in ("DATABASE_URL", "API_HOST", "API_PORT", "TIMEZONE", "STREAM_TIMEOUT"):
        monkeypatch.delenv(f"DAYBOOK_{name}", raising=False)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DAYBOOK_DATABASE_URL", "mysql://u:secret@h/d", "postgresql://user:password@host"),
        ("DAYBOOK_API_PORT", "http", "integer"),
        ("DAYBOOK_API_PORT", "70000", "65535"),
        ("DAYBOOK_TIMEZONE", "Mars/Olympus", "IANA time zone"),
        ("DAYBOOK_STREAM_TIMEOUT", "0", "number of seconds, such as 60"),
        ("DAYBOOK_STREAM_TIMEOUT", "soon", "number of seconds, such as 60"),
        ("DAYBOOK_STREAM_LIMIT", "0", "greater than or equal to 1"),
        ("DAYBOOK_LOG_FORMAT", "xml", "'console' or 'json'"),
    ],
)
def test_an_invalid_value_stops_the_process(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    expected: str,
) -> None:
    monkeypatch.setenv("DAYBOOK_DATABASE_URL", URL)
    monkeypatch.setenv(name, value)
    message = get_startup_error(create_app, capsys)
    assert message.startswith(f"{name}: ")
    assert expected in message
    assert "secret" not in message


def test_a_missing_value_stops_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert "DAYBOOK_DATABASE_URL: is not set" in get_startup_error(create_app, capsys)


def test_durations_are_given_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYBOOK_DATABASE_URL", URL)
    assert load(ApiSettings).stream_timeout == timedelta(seconds=60)
    monkeypatch.setenv("DAYBOOK_STREAM_TIMEOUT", "1.5")
    assert load(ApiSettings).stream_timeout == timedelta(seconds=1.5)
