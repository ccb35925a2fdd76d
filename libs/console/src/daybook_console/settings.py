"""What may `daybook run` be told? Everything has a default: what is not set is started."""

from pathlib import Path

from daybook_domain.settings import (
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
