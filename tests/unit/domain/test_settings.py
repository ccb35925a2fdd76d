"""Is a URL that cannot lead anywhere refused by name, before anybody connects?"""

from functools import partial

import pytest

from daybook_platform.settings import (
    BrokerSettings,
    DatabaseSettings,
    RedisSettings,
    Settings,
    load,
)
from tests.support.settings import refusal

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
        # A slash in a password ends the host, unless it is written as %2F.
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
def test_a_broken_url_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: tuple[str, type[Settings]],
    value: str,
) -> None:
    name, settings = setting
    monkeypatch.setenv(name, value)
    said = refusal(partial(load, settings), capsys)
    assert said.startswith(f"{name}: expected ")
    assert "sec" not in said


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
def test_a_good_url_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch, setting: tuple[str, type[Settings]], value: str
) -> None:
    name, settings = setting
    monkeypatch.setenv(name, value)
    (url,) = load(settings).model_dump().values()
    assert url.get_secret_value() == value
