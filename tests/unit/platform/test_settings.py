"""Validation of URLs and durations."""

from datetime import timedelta
from functools import partial
from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError

from daybook_platform.settings import (
    POSITIVE,
    BrokerSettings,
    DatabaseSettings,
    DurationSeconds,
    RedisSettings,
    Settings,
    load,
    seconds_between,
)
from tests.support.settings import get_startup_error

DATABASE = ("DAYBOOK_DATABASE_URL", DatabaseSettings)
BROKER = ("DAYBOOK_BROKER_URL", BrokerSettings)
REDIS = ("DAYBOOK_REDIS_URL", RedisSettings)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (DATABASE, "mysql://u:secret@h/d"),
        (DATABASE, "postgresql://"),
        (DATABASE, "postgresql://u:secret@h:port/d"),
        (DATABASE, "postgresql://u:secret@h:70000/d"),
        # An unescaped slash in a password ends the host.
        (DATABASE, "postgresql://u:sec/ret@h/d"),
        (DATABASE, "postgresql://u:secret@[::1/d"),
        (BROKER, "amqp://u:secret@h:port/"),
        (REDIS, "redis://:secret@h:port/0"),
        (REDIS, "redis://:secret@h/cache"),
        (REDIS, "redis://:secret@h/0/1"),
        (REDIS, "rediss://:secret@h?db=cache"),
        (BROKER, "redis://:secret@h/runs"),
    ],
)
def test_an_invalid_url_exits_with_its_name(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: tuple[str, type[Settings]],
    value: str,
) -> None:
    name, settings = setting
    monkeypatch.setenv(name, value)
    message = get_startup_error(partial(load, settings), capsys)
    assert message.startswith(f"{name}: expected ")
    assert "sec" not in message


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (DATABASE, "postgresql://u:p%2Fw@h/d"),
        (DATABASE, "postgresql://u@[::1]:5432/d"),
        (DATABASE, "postgresql:///d?host=/run/postgresql"),
        (BROKER, "amqps://u:p@h/"),
        (BROKER, "redis://h"),
        (BROKER, "amqp://u:p@h/a-virtual-host"),
        (REDIS, "redis://h/15"),
        (REDIS, "redis://h/?db=3"),
        (REDIS, ""),
    ],
)
def test_a_valid_url_is_accepted_unchanged(
    monkeypatch: pytest.MonkeyPatch, setting: tuple[str, type[Settings]], value: str
) -> None:
    name, settings = setting
    monkeypatch.setenv(name, value)
    (url,) = load(settings).model_dump().values()
    assert url.get_secret_value() == value


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("60", 60), ("0.5", 0.5), (" 1e3 ", 1000), ("0", 0), ("999999999", 999999999)],
)
def test_a_duration_is_a_number_of_seconds(value: str, seconds: float) -> None:
    duration = TypeAdapter(DurationSeconds).validate_python(value)

    assert duration == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "soon", "-1", "nan", "inf", "1e9", "00:01:00", "PT60S"])
def test_a_duration_that_is_not_a_number_of_seconds_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="expected a number of seconds"):
        TypeAdapter(DurationSeconds).validate_python(value)


@pytest.mark.parametrize("value", ["0", "-0.0", timedelta(0)])
def test_a_positive_duration_of_zero_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="expected a number of seconds"):
        TypeAdapter(Annotated[DurationSeconds, POSITIVE]).validate_python(value)


@pytest.mark.parametrize("value", ["9.9", "60.5", timedelta(seconds=61)])
def test_a_duration_outside_its_limits_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="expected a number of seconds from 10 to 60"):
        TypeAdapter(Annotated[DurationSeconds, seconds_between(10, 60)]).validate_python(value)


@pytest.mark.parametrize("value", ["10", "60"])
def test_the_limits_of_a_duration_are_included(value: str) -> None:
    limited = TypeAdapter(Annotated[DurationSeconds, seconds_between(10, 60)])

    assert limited.validate_python(value) == timedelta(seconds=int(value))
