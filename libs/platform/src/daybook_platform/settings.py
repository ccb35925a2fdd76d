"""Fragments of the services' settings, and their validation.

Each service composes one frozen class from these fragments, and builds it once in its `main.py`.
"""

import sys
from datetime import timedelta
from typing import Annotated, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit
from zoneinfo import available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from daybook_domain.runs.retries import OUTAGE_LIMIT

PREFIX = "DAYBOOK_"

_MAX_SECONDS = 1e9
_EXPECTED_SECONDS = "expected a number of seconds, such as 60 or 0.5"


def _url(*schemes: str, example: str, optional: bool = False) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if optional and not url:
            return value
        scheme, separator, rest = url.partition("://")
        if not separator or not rest or scheme not in schemes or not _is_valid(url):
            raise ValueError(f"expected {example}")
        return value

    return AfterValidator(check)


def _is_valid(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # `urlsplit` parses the port on access, and raises then if it is not a number.
        if parts.port == 0:
            return False
    except ValueError:
        return False
    if not parts.scheme.startswith("redis"):
        return True
    # redis-py would use database 0 for a path that is not a number.
    database = parse_qs(parts.query).get("db") or [parts.path.strip("/") or "0"]
    return all(number.isascii() and number.isdigit() for number in database)


def _require_zone(value: str) -> str:
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
TimeZoneName = Annotated[str, AfterValidator(_require_zone)]
Port = Annotated[int, Field(ge=0, le=65535)]


def _parse_seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < _MAX_SECONDS:
        raise ValueError(_EXPECTED_SECONDS)
    return timedelta(seconds=seconds)


def _require_positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError(f"{_EXPECTED_SECONDS}; more than 0")
    return value


def seconds_between(minimum: int, maximum: int) -> AfterValidator:
    """Return the constraint of a `DurationSeconds` with both limits included."""

    def check(value: timedelta) -> timedelta:
        # Pydantic's own constraints would name the limit as `datetime.timedelta(seconds=10)`.
        if not timedelta(seconds=minimum) <= value <= timedelta(seconds=maximum):
            raise ValueError(f"expected a number of seconds from {minimum} to {maximum}")
        return value

    return AfterValidator(check)


DurationSeconds = Annotated[timedelta, BeforeValidator(_parse_seconds)]
"""A duration, written as seconds; Pydantic alone accepts `00:01:00` and `PT60S`, but not `60`."""

POSITIVE = AfterValidator(_require_positive)
"""Constraint of a `DurationSeconds` that must be longer than 0."""


class Settings(BaseSettings):
    """Base of all fragments: frozen, from `DAYBOOK_*` and, in development, `.env`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )


class DatabaseSettings(Settings):
    """Connection to Postgres."""

    database_url: DatabaseUrl
    """URL of the database."""


class BrokerSettings(Settings):
    """Connection to RabbitMQ."""

    broker_url: BrokerUrl
    """URL of the message broker."""


class RedisSettings(Settings):
    """Connection to Redis."""

    redis_url: RedisUrl = SecretStr("")
    """URL of Redis; empty: without task results and without schedules of TaskIQ's callers."""


class CalendarSettings(Settings):
    """Definition of a business day."""

    timezone: TimeZoneName = "UTC"
    """IANA name of the time zone whose midnights delimit business days."""


class LatenessSettings(Settings):
    """Detection of late reports."""

    late_after: Annotated[DurationSeconds, POSITIVE] = timedelta(minutes=15)
    """Time after its due time at which a report that is not sealed is late."""


class OutageSettings(Settings):
    """Retries of runs during an outage of the database."""

    outage_retry_seconds: Annotated[DurationSeconds, seconds_between(0, 2_592_000)] = OUTAGE_LIMIT
    """Time in which attempts of a run that end because of an outage of Postgres are not counted."""


class LogSettings(Settings):
    """Log output."""

    log_format: Literal["console", "json"] = "json"
    """Format of log lines."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is logged."""


class HealthSettings(Settings):
    """Address of `/healthz`, `/readyz` and `/metrics` in a service without REST."""

    health_host: str = "127.0.0.1"
    """Address to listen on."""
    health_port: Port = 0
    """Port to listen on; 0: any free one."""


S = TypeVar("S", bound=Settings)


def load(settings: type[S]) -> S:
    """Return the settings from the environment.

    If a variable is missing or invalid, exit with code 2 after writing each variable's name and
    what was expected to standard error; values are not shown, since they may be secrets.
    """
    try:
        return settings()
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            name = PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
            sys.stderr.write(f"{name}: {_describe(problem['type'], problem['msg'])}\n")
        raise SystemExit(2) from None


def _describe(kind: str, message: str) -> str:
    if kind == "missing":
        return "is not set, and has no default"
    return message.removeprefix("Value error, ")
