"""Which settings do services compose?

Each service has one frozen class, built once in its `main.py` from the fragments here.
"""

import sys
from datetime import timedelta
from typing import Annotated, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit
from zoneinfo import available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "DAYBOOK_"


def _url(*schemes: str, example: str, optional: bool = False) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if optional and not url:
            return value
        scheme, separator, rest = url.partition("://")
        if not separator or not rest or scheme not in schemes or not _is_readable(url):
            raise ValueError(f"expected {example}")
        return value

    return AfterValidator(check)


def _is_readable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # The port is read when it is asked for; a word in its place, too.
        if parts.port == 0:
            return False
    except ValueError:
        return False
    if not parts.scheme.startswith("redis"):
        return True
    # redis-py would use database 0 in place of a path that is no number.
    database = parse_qs(parts.query).get("db") or [parts.path.strip("/") or "0"]
    return all(number.isascii() and number.isdigit() for number in database)


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("expected an IANA time zone such as UTC or Europe/Berlin")
    return value


DatabaseUrl = Annotated[
    SecretStr,
    _url(
        "postgresql",
        "postgres",
        "postgresql+asyncpg",
        example="postgresql://user:password@host:5432/database",
    ),
]
BrokerUrl = Annotated[
    SecretStr,
    _url(
        "amqp",
        "amqps",
        "redis",
        "rediss",
        example="amqp://user:password@host:5672/ (or redis://… for the embedded broker)",
    ),
]
RedisUrl = Annotated[
    SecretStr,
    _url("redis", "rediss", example="redis://host:6379/0, or nothing for none", optional=True),
]
Zone = Annotated[str, AfterValidator(_zone)]
Port = Annotated[int, Field(ge=0, le=65535)]


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e9:
        raise ValueError("expected a number of seconds, such as 60 or 0.5")
    return timedelta(seconds=seconds)


Seconds = Annotated[timedelta, BeforeValidator(_seconds), Field(gt=timedelta(0))]
"""A positive time, in seconds; Pydantic alone would take `00:01:00` or `PT60S`, but not `60`."""


class Settings(BaseSettings):
    """The base of all fragments: frozen, from `DAYBOOK_*` and, in development, `.env`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )


class DatabaseSettings(Settings):
    """Where is Postgres?"""

    database_url: DatabaseUrl


class BrokerSettings(Settings):
    """Where is RabbitMQ?"""

    broker_url: BrokerUrl


class RedisSettings(Settings):
    """Where is Redis, if anywhere? Empty: no task results and no copies are kept."""

    redis_url: RedisUrl = SecretStr("")


class CalendarSettings(Settings):
    """What is a business day?"""

    timezone: Zone = "UTC"


class LatenessSettings(Settings):
    """When is somebody told that a report is not there?"""

    late_after: Seconds = timedelta(minutes=15)
    """A day that is not sealed so long after its report was due is late."""


class LogSettings(Settings):
    """What does the log look like?"""

    log_format: Literal["console", "json"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class HealthSettings(Settings):
    """Where does a service without REST answer `/healthz`, `/readyz` and `/metrics`?

    Port 0 takes any free one.
    """

    health_host: str = "127.0.0.1"
    health_port: Port = 0


class CacheSettings(RedisSettings):
    """Are copies of users and products kept in Redis? The same for all services of a system."""

    cache: Literal["on", "off"] = "on"
    cache_timeout: Seconds = timedelta(seconds=0.25)
    """A Redis that does not answer for so long is done without, until it does again."""

    @property
    def cache_url(self) -> str:
        """Where copies are kept; empty: nowhere."""
        return self.redis_url.get_secret_value() if self.cache == "on" else ""


S = TypeVar("S", bound=Settings)


def load(settings: type[S]) -> S:
    """Return the settings that the environment gives.

    What is missing or wrong ends the process with exit code 2, naming each variable and what
    was expected; values are not shown, for they may be secrets.
    """
    try:
        return settings()
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            name = PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
            sys.stderr.write(f"{name}: {_expected(problem['type'], problem['msg'])}\n")
        raise SystemExit(2) from None


def _expected(kind: str, message: str) -> str:
    if kind == "missing":
        return "is not set, and has no default"
    return message.removeprefix("Value error, ")
