"""Settings of the commands."""

from pathlib import Path

from pydantic import SecretStr, field_validator

from daybook_platform.settings import (
    BrokerSettings,
    BrokerUrl,
    CalendarSettings,
    DatabaseSettings,
    DatabaseUrl,
    Port,
    RedisUrl,
)


class RunSettings(CalendarSettings):
    """Settings of `daybook run`; a server without a URL is started as a private process."""

    database_url: DatabaseUrl | None = None
    broker_url: BrokerUrl | None = None
    redis_url: RedisUrl | None = None
    data_dir: Path = Path(".daybook")
    api_port: Port = 8000


class MigrateSettings(DatabaseSettings):
    """Settings of `daybook migrate`."""


class SchedulesSettings(DatabaseSettings, CalendarSettings):
    """Settings of `daybook schedules` and `daybook backfill`."""


class CheckSettings(DatabaseSettings):
    """Settings of `daybook check`."""


class DemoSettings(DatabaseSettings, CalendarSettings):
    """Settings of `daybook demo load`."""


class PublishSettings(DatabaseSettings, BrokerSettings):
    """Settings of `daybook demo publish`."""

    @field_validator("broker_url")
    @classmethod
    def _is_rabbitmq(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith("amqp"):
            raise ValueError("expected amqp://…: orders are sent through RabbitMQ")
        return value
