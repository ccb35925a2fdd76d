"""Postgres, broker and Redis of `daybook run`: configured ones, or private processes."""

from contextlib import ExitStack
from dataclasses import dataclass

from daybook_console.settings import RunSettings
from daybook_embedded.postgres import PostgresServer
from daybook_embedded.rabbitmq import RabbitServer, find_rabbitmq
from daybook_embedded.valkey import ValkeyServer


@dataclass(frozen=True)
class ServerUrls:
    """URLs of the servers, and a description of each for the user."""

    database_url: str
    broker_url: str
    redis_url: str
    has_private_database: bool
    descriptions: dict[str, str]


def start(settings: RunSettings, stack: ExitStack) -> ServerUrls:
    """Start the servers without a URL in the settings; `stack` stops them in reverse order."""
    folder = settings.data_dir.absolute()
    descriptions: dict[str, str] = {}
    if settings.database_url is not None:
        database_url = settings.database_url.get_secret_value()
        descriptions["Postgres"] = "configured by DAYBOOK_DATABASE_URL"
    else:
        database_url = stack.enter_context(PostgresServer(folder / "postgres")).url
        descriptions["Postgres"] = f"private, {folder / 'postgres'}"
    if settings.redis_url is not None:
        redis_url = settings.redis_url.get_secret_value()
        descriptions["Redis"] = "configured by DAYBOOK_REDIS_URL" if redis_url else "none"
    else:
        redis_url = stack.enter_context(ValkeyServer(folder / "valkey")).url
        descriptions["Redis"] = f"private (Valkey), {folder / 'valkey'}"
    if settings.broker_url is not None:
        broker_url = settings.broker_url.get_secret_value()
        descriptions["Broker"] = "configured by DAYBOOK_BROKER_URL"
    elif find_rabbitmq() is not None:
        broker_url = stack.enter_context(RabbitServer(folder / "rabbitmq")).url
        descriptions["Broker"] = f"private RabbitMQ, {folder / 'rabbitmq'}"
    else:
        broker_url = redis_url or stack.enter_context(ValkeyServer(folder / "valkey")).url
        descriptions["Broker"] = "Redis streams (no rabbitmq-server on the PATH)"
    return ServerUrls(
        database_url=database_url,
        broker_url=broker_url,
        redis_url=redis_url,
        has_private_database=settings.database_url is None,
        descriptions=descriptions,
    )
