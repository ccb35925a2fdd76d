"""Which Postgres, broker and Redis does `daybook run` use: those it is told, or private ones?"""

from contextlib import ExitStack
from dataclasses import dataclass

from daybook_console.settings import RunSettings
from daybook_embedded.postgres import PostgresServer
from daybook_embedded.rabbitmq import RabbitServer, find_rabbitmq
from daybook_embedded.valkey import ValkeyServer


@dataclass(frozen=True)
class Servers:
    """Where the servers are, and in words, who runs them."""

    database_url: str
    broker_url: str
    redis_url: str
    private_database: bool
    about: dict[str, str]


def start(settings: RunSettings, stack: ExitStack) -> Servers:
    """Start what the settings do not name; `stack` stops it, the last started first."""
    folder = settings.data_dir.absolute()
    about: dict[str, str] = {}
    if settings.database_url is not None:
        database_url = settings.database_url.get_secret_value()
        about["Postgres"] = "yours, DAYBOOK_DATABASE_URL"
    else:
        database_url = stack.enter_context(PostgresServer(folder / "postgres")).url
        about["Postgres"] = f"private, {folder / 'postgres'}"
    if settings.redis_url is not None:
        redis_url = settings.redis_url.get_secret_value()
        about["Redis"] = "yours, DAYBOOK_REDIS_URL" if redis_url else "none"
    else:
        redis_url = stack.enter_context(ValkeyServer(folder / "valkey")).url
        about["Redis"] = f"private (Valkey), {folder / 'valkey'}"
    if settings.broker_url is not None:
        broker_url = settings.broker_url.get_secret_value()
        about["Broker"] = "yours, DAYBOOK_BROKER_URL"
    elif find_rabbitmq() is not None:
        broker_url = stack.enter_context(RabbitServer(folder / "rabbitmq")).url
        about["Broker"] = f"private RabbitMQ, {folder / 'rabbitmq'}"
    else:
        broker_url = redis_url or stack.enter_context(ValkeyServer(folder / "valkey")).url
        about["Broker"] = "Redis streams (no rabbitmq-server on the PATH)"
    return Servers(
        database_url=database_url,
        broker_url=broker_url,
        redis_url=redis_url,
        private_database=settings.database_url is None,
        about=about,
    )
