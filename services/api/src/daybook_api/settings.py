"""Settings of the API service."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from daybook_platform.settings import (
    POSITIVE,
    CalendarSettings,
    DatabaseSettings,
    DurationSeconds,
    LatenessSettings,
    LogSettings,
    Port,
)


class ApiSettings(DatabaseSettings, CalendarSettings, LatenessSettings, LogSettings):
    """The settings of the API, read from environment variables."""

    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    query_timeout: Annotated[DurationSeconds, POSITIVE] = timedelta(seconds=30)
    """Maximum time of one database transaction of a request."""
    idempotency_retention: Annotated[DurationSeconds, POSITIVE] = timedelta(days=1)
    """Time for which an `Idempotency-Key` and its response are stored."""
    stream_timeout: Annotated[DurationSeconds, POSITIVE] = timedelta(seconds=60)
    """Maximum time a report stream may stall; a stalled one keeps a snapshot open."""
    stream_limit: Annotated[int, Field(ge=1, le=1000)] = 16
    """Maximum number of concurrent report streams; each uses a connection to Postgres."""
    event_readers: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Maximum number of concurrent event readers; each keeps a connection open."""
