"""What may `daybook run` be told? Everything has a default: what is not set is started."""

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
    """Which servers are there already, where does the data live, and which port do we want?"""

    database_url: DatabaseUrl | None = None
    broker_url: BrokerUrl | None = None
    redis_url: RedisUrl | None = None
    data_dir: Path = Path(".daybook")
    api_port: Port = 8000


class MigrateSettings(DatabaseSettings):
    """Which database gets the schema?"""


class SchedulesSettings(DatabaseSettings, CalendarSettings):
    """Which database has the schedules, and which zone do new ones get?"""


class CheckSettings(DatabaseSettings):
    """Which database is checked?"""


class DemoSettings(DatabaseSettings, CalendarSettings):
    """Which database gets the demo shop, and what is a day there?"""


class PublishSettings(DatabaseSettings, BrokerSettings):
    """Which database has the demo shop, and which RabbitMQ gets its orders?"""

    @field_validator("broker_url")
    @classmethod
    def _is_rabbitmq(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith("amqp"):
            raise ValueError("expected amqp://…: orders are sent through RabbitMQ")
        return value
